"""Everything that a run's next step depends on: collected from a strategy for a checkpoint, and put back."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import trigger_plugins
from torch import nn

from ftp_cl.optim.ftp import STATE_KEY
from ftp_cl.plugins.randomness import capture_random_state, restore_random_state
from ftp_cl.runs.encoding import BenchmarkItems, CannotSave, Decoder, Encoder, load_resized

BEFORE = "before."
"""With this begin the names of tensors that were so before the experience."""


def encode_strategy(strategy: SupervisedTemplate, encoder: Encoder) -> dict[str, Any]:
    """The state of a strategy: model, optimizer, plugins, own attributes, and the global random generators.

    A plugin takes part in one of three ways. With `checkpoint_state()` and `restore_state(state, strategy)` it says
    itself what its state is; `restore_state` is called when model and optimizer are in place. Otherwise its attributes
    are saved if all are plain values, tensors, datasets of the benchmark's items, objects with `state_dict` and
    `load_state_dict`, or objects of Avalanche and ftp_cl made of these. Otherwise nothing can be saved. So do the
    attributes of the strategy that Avalanche's template does not have, those of a user's own class.

    Raises:
        CannotSave: a plugin (or the optimizer) has state that has no form in a checkpoint.
    """
    return {
        "model": _encode_model(strategy.model, encoder),
        "optimizer": _encode_optimizer(strategy, encoder),
        "plugins": [_encode_plugin(plugin, i, encoder) for i, plugin in enumerate(strategy.plugins)],
        "own": encoder.encode(_own_attributes(strategy), "strategy"),
        "random": encoder.encode(capture_random_state(strategy.device.type == "cuda"), "random"),
    }


def decode_strategy(
    state: dict[str, Any],
    strategy: SupervisedTemplate,
    tensors: dict[str, torch.Tensor],
    items: BenchmarkItems,
    trained_on: Sequence[Any],
) -> None:
    """The inverse of `encode_strategy`, on a strategy made from the same configuration.

    Args:
        state: from `encode_strategy`.
        strategy: before or while training.
        tensors: of the checkpoint.
        items: of the benchmark.
        trained_on: the experiences begun so far, for models whose modules appear with them.

    Raises:
        ValueError: the state does not fit the strategy.
    """
    decoder = Decoder(tensors, items, strategy.model)
    try:
        _decode_model(state["model"], strategy, decoder, trained_on)
        _decode_optimizer(state["optimizer"], strategy, decoder)
        if len(state["plugins"]) != len(strategy.plugins):
            raise ValueError("it has another number of plugins")
        for code, plugin in zip(state["plugins"], strategy.plugins, strict=True):
            _decode_plugin(code, plugin, strategy, decoder)
        _decode_own_attributes(state["own"], strategy, decoder)
        restore_random_state(decoder.decode(state["random"]))
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from error


# ---- the model ------------------------------------------------------------------------------------------------------


def _encode_model(model: nn.Module, encoder: Encoder) -> dict[str, Any]:
    return {
        "tensors": encoder.encode(dict(model.state_dict()), "model"),
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modules": {name: _plain_attributes(module) for name, module in model.named_modules()},
    }


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """What a state dict leaves out: whether the module is in training mode, how many columns a head gives, and such."""
    return {name: value for name, value in vars(module).items() if type(value) in (bool, int, float)}


def _decode_model(
    code: dict[str, Any], strategy: SupervisedTemplate, decoder: Decoder, trained_on: Sequence[Any]
) -> None:
    strategy.model.to(strategy.device)
    model, tensors = strategy.model, decoder.decode(code["tensors"])
    if model.state_dict().keys() != tensors.keys():
        _replay_adaptation(strategy, trained_on)
    load_resized(model, tensors)
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    for name, requires_grad in code["requires_grad"].items():
        parameters[name].requires_grad_(bool(requires_grad))
    for name, attributes in code["modules"].items():
        module = modules[name]
        for attribute, value in attributes.items():
            if type(vars(module).get(attribute)) is not type(value):
                raise ValueError(f"the module {name!r} has no such {attribute}")
            setattr(module, attribute, value)


def _replay_adaptation(strategy: SupervisedTemplate, trained_on: Sequence[Any]) -> None:
    """Let modules appear as they did in training; what is in them is loaded afterwards."""
    strategy.model.train()
    strategy.is_training = True
    trigger_plugins(strategy, "before_training")
    for strategy.experience in trained_on:
        strategy.model = strategy.model_adaptation()
    strategy.experience = None


# ---- the optimizer --------------------------------------------------------------------------------------------------


def _encode_optimizer(strategy: SupervisedTemplate, encoder: Encoder) -> dict[str, Any]:
    """As the optimizer's state dict, with names in place of numbers, because growth changes parameters and order."""
    names = {id(parameter): name for name, parameter in strategy.model.named_parameters()}
    groups = [[names.get(id(parameter)) for parameter in group["params"]] for group in strategy.optimizer.param_groups]
    if any(name is None for group in groups for name in group):
        raise CannotSave("optimizer has parameters that are not the model's")
    # FTP's state rides in there; its plugin saves it.
    state = {key: value for key, value in strategy.optimizer.state_dict().items() if key != STATE_KEY}
    return {"names": groups, "state": encoder.encode(state, "optimizer")}


def _decode_optimizer(code: dict[str, Any], strategy: SupervisedTemplate, decoder: Decoder) -> None:
    optimizer, parameters = strategy.optimizer, dict(strategy.model.named_parameters())
    optimizer.state.clear()
    for group, names in zip(optimizer.param_groups, code["names"], strict=True):
        group["params"] = [parameters[name] for name in names]
    optimizer.load_state_dict(decoder.decode(code["state"]))
    if type(optimizer) in (torch.optim.SGD, torch.optim.AdamW):
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape != (() if name == "step" else parameter.shape):
                    raise ValueError(f"the optimizer's {name} is {list(value.shape)}, and its weights are not")
    # Avalanche's record of what it put into the optimizer; without it, it would empty the optimizer's state.
    strategy.optimized_param_id = parameters


# ---- plugins --------------------------------------------------------------------------------------------------------


def _encode_plugin(plugin: Any, number: int, encoder: Encoder, prefix: str = "") -> dict[str, Any]:
    where = f"{prefix}plugins.{number}.{type(plugin).__name__}"
    state: Any
    if isinstance(plugin, EvaluationPlugin):
        state = {}  # its metrics start anew at each evaluation
    elif hasattr(type(plugin), "checkpoint_state"):
        state = plugin.checkpoint_state()
    else:
        state = vars(plugin)
    return {"class": type(plugin).__name__, "state": encoder.encode(dict(state), where)}


def _decode_plugin(code: dict[str, Any], plugin: Any, strategy: SupervisedTemplate, decoder: Decoder) -> None:
    if code["class"] != type(plugin).__name__:
        raise ValueError(f"it has a {code['class']} where the run has a {type(plugin).__name__}")
    if hasattr(type(plugin), "checkpoint_state"):
        plugin.restore_state(decoder.decode(code["state"]), strategy)
    elif not isinstance(plugin, EvaluationPlugin):
        decoder.decode(code["state"], vars(plugin))


# ---- what a user brought along --------------------------------------------------------------------------------------


def encode_own_parts(strategy: SupervisedTemplate, encoder: Encoder) -> dict[str, Any]:
    """The state of the plugins and attributes that are neither Avalanche's nor ours.

    Raises:
        CannotSave: as `encode_strategy`.
    """
    plugins = enumerate(_own_plugins(strategy))
    return {
        "plugins": [_encode_plugin(plugin, i, encoder, BEFORE) for i, plugin in plugins],
        "attributes": encoder.encode(_own_attributes(strategy), f"{BEFORE}strategy"),
    }


def decode_own_parts(code: Any, strategy: SupervisedTemplate, decoder: Decoder) -> None:
    """The inverse of `encode_own_parts`."""
    for state, plugin in zip(code["plugins"], _own_plugins(strategy), strict=True):
        _decode_plugin(state, plugin, strategy, decoder)
    _decode_own_attributes(code["attributes"], strategy, decoder)


def _own_plugins(strategy: SupervisedTemplate) -> list[Any]:
    known = ("avalanche", "ftp_cl")
    return [plugin for plugin in strategy.plugins if type(plugin).__module__.split(".")[0] not in known]


def _own_attributes(strategy: SupervisedTemplate) -> dict[str, Any]:
    """Those that Avalanche's template does not have."""
    known = {"checkpoints", *_attributes_of_template()}
    return {name: value for name, value in vars(strategy).items() if name not in known}


@cache
def _attributes_of_template() -> frozenset[str]:
    """All are there from the beginning; without an evaluator, which would warn that it has no logger."""
    optimizer = torch.optim.SGD([torch.zeros(1)])  # of no layer: that would draw random numbers
    return frozenset(vars(Naive(model=nn.Identity(), optimizer=optimizer, evaluator=lambda: None)))  # type: ignore


def _decode_own_attributes(code: Any, strategy: SupervisedTemplate, decoder: Decoder) -> None:
    existing = _own_attributes(strategy)
    for name in existing:
        delattr(strategy, name)
    vars(strategy).update(decoder.decode(code, existing))
