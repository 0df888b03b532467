"""The optimizer of a run: which weights are trained, and which have which rate and decay."""

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ftp_cl.models import ContinualClassifier
from ftp_cl.optim.names import canonical_name, match
from ftp_cl.plugins import find_classifier
from ftp_cl.runs.config import ConfigError


def freeze_all_but(patterns: str | Sequence[str], model: nn.Module) -> None:
    """Let nothing of the backbone be trained but the parameters of these names and shell patterns: `train_only`.

    Raises:
        ValueError: one of them matches nothing; names the nearest.
    """
    trained = match(patterns if isinstance(patterns, str) else list(patterns), model, "train_only")
    head = _head_names(model)
    for name, parameter in model.named_parameters():
        if name not in head and canonical_name(name) not in trained:
            parameter.requires_grad_(False)


def build_optimizer(options: DictConfig, model: nn.Module, prefers_fused: bool) -> torch.optim.Optimizer:
    """That of the keys `optimizer.*`.

    Args:
        options: the keys.
        model: what is trained.
        prefers_fused: torch's fused step is taken unless a key says otherwise.

    Raises:
        ConfigError: a key does not fit the optimizer or the model.
    """
    groups = _groups(options, model)
    if options.name == "sgd":
        nesterov = bool(options.nesterov)
        if nesterov and not options.momentum:
            raise ConfigError("optimizer.nesterov=true needs a momentum: optimizer.momentum=0.9.")
        if options.fused:
            raise ConfigError("optimizer.fused=true is for optimizer.name=adamw, whose step FTP joins, not sgd.")
        decay = options.weight_decay
        return torch.optim.SGD(groups, options.lr, momentum=options.momentum, weight_decay=decay, nesterov=nesterov)
    if options.nesterov:
        raise ConfigError(f"optimizer.nesterov=true is for optimizer.name=sgd, not {options.name}.")
    fused = prefers_fused if options.fused is None else options.fused
    # False would rule out torch's loop over all tensors at once, too.
    return torch.optim.AdamW(groups, options.lr, weight_decay=options.weight_decay, fused=fused or None)


def _groups(options: DictConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Backbone first, then the head."""
    head = _head_names(model)
    rate = options.lr if options.backbone_lr is None else options.backbone_lr
    backbone = {name: weight for name, weight in model.named_parameters() if name not in head}
    of_head = {"params": [weight for name, weight in model.named_parameters() if name in head], "lr": options.lr}
    if options.layer_decay is None and options.decay_1d is not False:
        return [{"params": list(backbone.values()), "lr": rate}, of_head]
    groups = [
        {"params": group["params"], "lr": rate * group["lr_scale"], "weight_decay": group["weight_decay"]}
        for group in _layers(options, model, backbone)
    ]
    if options.decay_1d is not False:
        return [*groups, of_head]
    for is_matrix, decay in ((False, 0.0), (True, options.weight_decay)):
        if part := [weight for weight in of_head["params"] if (weight.ndim > 1) == is_matrix]:
            groups.append({"params": part, "lr": options.lr, "weight_decay": decay})
    return groups


def _layers(options: DictConfig, model: nn.Module, backbone: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """Timm's groups of the backbone's weights, by layer and decay."""
    from timm.optim import param_groups_layer_decay

    part: Any = getattr(model, "backbone", None)
    if not hasattr(part, "group_matcher"):
        raise ConfigError("optimizer.layer_decay and optimizer.decay_1d need a model of timm, which tells its layers.")
    frozen = [weight for weight in backbone.values() if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)  # timm leaves out what is frozen, and a method may thaw it
    stand_in = part.head_of_the_run = nn.Parameter(torch.zeros(1))  # for the head, which is the layer on top
    try:
        groups = param_groups_layer_decay(
            part,
            options.weight_decay,
            part.no_weight_decay() if options.decay_1d is False and hasattr(part, "no_weight_decay") else (),
            weight_decay_exclude_1d=options.decay_1d is False,
            layer_decay=options.layer_decay or 1.0,
        )
    finally:
        del part.head_of_the_run
        for weight in frozen:
            weight.requires_grad_(False)
    for group in groups:
        group["params"] = [weight for weight in group["params"] if weight is not stand_in]
    return [group for group in groups if group["params"]]


def _head_names(model: nn.Module) -> set[str]:
    if isinstance(model, ContinualClassifier):  # whose head may have no weights, as LDA's
        return {f"head.{name}" for name, _ in model.head.named_parameters()}
    return find_classifier(model)[0]
