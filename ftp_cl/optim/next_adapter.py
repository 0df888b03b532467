"""Continual LoRA: at a task's start an adapter's change is kept, and training goes on from no change."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import torch
from torch import nn

from ftp_cl.optim.adapter_kinds import Adapter, BiasAdapter, Unbounded, adapters_in
from ftp_cl.optim.adapters import memory_of
from ftp_cl.projection.rows import NORM_EPSILON

_DROPOUTS = ("lora_dropout", "vera_dropout", "rank_dropout", "module_dropout")


def next_adapter(model: nn.Module, *, merge: bool | None = None) -> list[str]:
    """Keep what the adapters that are trained have learned, and set their change to 0: before a new task.

    The change of an adapter since a task's start, s (B A - B0 A0), has rank 2r, and no scaling of B bounds it. From
    B = 0 on it is s B A again, so that FTP's ball is around the weights at the task's start. A and the parameters stay:
    the optimizer needs no new ones. Afterwards `FTP.restart()` begins with new radii.

    Args:
        model: with peft's layers anywhere in it.
        merge: True: the change is added to the base weight. False: it goes into a second adapter, frozen and active
            beside the first, also over a quantised base, so that the changes of all tasks are summed. None: merged if
            all base weights can take it.

    Returns:
        The names of the frozen adapters that were added; empty if merged, or if nothing had changed.

    Raises:
        ValueError: for an adapter that FTP cannot bound, is merged already or sharded, or, with `merge=True`, a base
            weight that cannot take the sum: it is not of float32 or float64, tied to another layer's, or of a grouped
            convolution.
    """
    return keep_changes(model, list(_trained_adapters(model)), merge)


@torch.no_grad()
def keep_changes(model: nn.Module, adapters: Iterable[Adapter], merge: bool | None) -> list[str]:
    """`next_adapter` of these, with what cannot be kept without them: a layer's own bias, and adapters tied to one."""
    changed = [adapter for adapter in adapters if adapter.norms().sub(NORM_EPSILON).gt(0).any()]
    for adapter in changed:
        adapter.check_step()
        if hasattr(adapter.factors()[0], "placements"):
            raise ValueError(
                f"Adapter {adapter.key!r} of {adapter.where} is sharded already: call this before fully_shard."
            )
    every = [adapter for adapter in adapters_in(model) if isinstance(adapter, Adapter) and adapter.exists]
    tied = {memory_of(adapter.zeroed()) for adapter in changed}
    layers = dict.fromkeys((one.layer, one.key) for one in every if memory_of(one.zeroed()) in tied)
    kept = [adapter for adapter in every if (adapter.layer, adapter.key) in layers]
    holding = Counter(id(parameter) for module in model.modules() for parameter in module._parameters.values())
    problems = {adapter: problem for adapter in kept if (problem := _merging_problem(adapter, holding))}
    if merge and problems:
        adapter, problem = next(iter(problems.items()))
        raise ValueError(
            f"The change of {adapter.where} cannot be merged, because {problem}; merge=False keeps it in a frozen "
            "adapter."
        )
    names = []
    if merge is False or problems:
        names = [_freeze(model, layers, key) for key in sorted({key for _, key in layers})]
    else:
        for layer, key in layers:
            layer.merge(adapter_names=[key])
            layer.merged_adapters.remove(key)
    for adapter in kept:
        adapter.zeroed().zero_()
    return names


def restore_frozen(model: nn.Module, names: Iterable[str]) -> None:
    """Add the frozen adapters that a state dict of these names has and the model lacks; it is loaded afterwards."""
    missing = [name.split(".") for name in set(names) - model.state_dict().keys()]
    there = {(".".join(name[:-end]), name[-end]) for name in missing for end in (1, 2)}  # of a parameter, of a module
    if not there:
        return
    where = {module: name for name, module in model.named_modules()}
    found = dict.fromkeys((one.layer, one.key) for one in adapters_in(model) if isinstance(one, Adapter))

    def has(layer: Any, adapter: str) -> bool:
        return any((f"{where[layer]}.{part}", adapter) in there for part in layer.adapter_layer_names)

    for key in sorted({key for _, key in found}):
        for number in count(1):
            layers = [(layer, own) for layer, own in found if own == key and has(layer, f"{key}_{number}")]
            if not layers:
                break
            _freeze(model, layers, key)


def _merging_problem(adapter: Adapter, holding: Counter[int]) -> str | None:
    """Why the base weight cannot take the sum; None: it can."""
    base = adapter.layer.get_base_layer()
    weight = getattr(base, "weight", base)  # a quantised one may have another name
    kind = weight.dtype if type(weight) is nn.Parameter else type(weight).__name__
    if kind not in (torch.float32, torch.float64):
        return f"its base weight is of {kind}, which would round it"
    if holding[id(weight)] > 1:
        return "its base weight is tied to that of another layer"
    if getattr(base, "groups", 1) > 1:
        return "peft does not merge grouped convolutions"
    if isinstance(adapter, BiasAdapter) and base.bias is None:
        return "its adapter has a bias and the layer has none"
    return None


def _freeze(model: nn.Module, layers: Iterable[tuple[Any, str]], key: str) -> str:
    """Copy an adapter of these layers to a frozen one beside it, and make both active; returns its name."""
    configs = {id(found): found for module in model.modules() if (found := getattr(module, "peft_config", None))}
    known = {name for found in configs.values() for name in found}
    name = next(new for number in count(1) if (new := f"{key}_{number}") not in known)
    for found in configs.values():
        if key in found:
            # What peft trains in full beside adapters stays with the first one. The copy begins as it is.
            own: dict[str, Any] = {"modules_to_save": None, "init_lora_weights": True, "inference_mode": True}
            own.update(dict.fromkeys(_DROPOUTS, 0.0))
            config = found[name] = copy.deepcopy(found[key])
            for option in own.keys() & vars(config).keys():
                setattr(config, option, own[option])
    for layer, own_key in layers:
        if own_key != key:
            continue
        for part in (*layer.adapter_layer_names, *layer.other_param_names):
            container = getattr(layer, part)
            if hasattr(container, "keys") and key in container:
                container[name] = 0.0 if part in _DROPOUTS[2:] else _frozen(container[key])
        flags = {parameter: parameter.requires_grad for parameter in layer.parameters()}
        layer.set_adapter([*layer.active_adapters, name])
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return name


def _frozen(part: Any) -> Any:
    """A copy that is not trained, of a factor or of a number beside it; without dropout. Buffers are shared."""
    if isinstance(part, nn.Dropout):
        return nn.Identity()
    if isinstance(part, (nn.Module, nn.Parameter)):
        return copy.deepcopy(part).requires_grad_(False)
    return part


def _trained_adapters(model: nn.Module) -> Iterator[Adapter]:
    """The adapters of a model that get gradients; raises a ValueError if FTP cannot bound one."""
    for adapter in adapters_in(model):
        if isinstance(adapter, Unbounded):
            if any(parameter.requires_grad for parameter in adapter.parameters):
                raise ValueError(
                    f"{adapter.where} has an adapter of a kind whose change FTP cannot bound: {adapter.kind}."
                )
        elif adapter.is_trained:
            yield adapter
