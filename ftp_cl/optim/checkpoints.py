"""FTP's state within each parameter's own: torch.distributed.checkpoint keeps nothing else of an optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ftp_cl.projection.radius import NUMBERS, named

_PREFIX = "ftp_"
_TENSORS = ("anchor", "change", "norms", "shape")


def riding(
    optimizer: Optimizer, state_dict: Mapping[str, Any], tensors: Mapping[str, Any], names: Mapping[nn.Parameter, str]
) -> dict[str, Any]:
    """An optimizer's state dict with FTP's state of each parameter, which `tensors` has by name."""
    state, parameters = dict(state_dict["state"]), [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        own = tensors.get(names.get(parameter, ""))
        if own is not None:
            numbers = torch.tensor([float(own[key]) for key in NUMBERS], dtype=torch.float64)
            kept = {key: own[key] for key in _TENSORS if key in own} | {"numbers": numbers}
            entries = {f"{_PREFIX}{key}": value for key, value in kept.items()}
            state[index] = {**state.get(index, {}), **entries}
    return {**state_dict, "state": state}


def taken_off(
    optimizer: Optimizer, state_dict: Mapping[str, Any], names: Mapping[nn.Parameter, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """FTP's state by name, if it rides there, and the state dict without it.

    Raises:
        ValueError: the state of a parameter is no mapping.
    """
    states, tensors = state_dict.get("state"), {}
    if not isinstance(states, Mapping):
        return {}, dict(state_dict)
    for key, state in states.items():
        if not isinstance(state, Mapping):
            raise ValueError(f"The optimizer's state of parameter {key!r} is a {type(state).__name__}, not a mapping.")
    for group, saved in zip(optimizer.param_groups, state_dict.get("param_groups", ()), strict=False):
        for parameter, key in zip(group["params"], saved.get("params", ()), strict=False):
            found = {name[len(_PREFIX) :]: value for name, value in states.get(key, {}).items() if _is_own(name)}
            if "numbers" in found and parameter in names:
                numbers = named(found.pop("numbers").tolist())
                tensors[names[parameter]] = {**found, **numbers}
    rest = {key: {n: value for n, value in state.items() if not _is_own(n)} for key, state in states.items()}
    return tensors, {**state_dict, "state": rest if tensors else states}


def _is_own(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(_PREFIX)
