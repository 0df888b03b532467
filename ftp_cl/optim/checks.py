"""Checks of what FTP is given: a failure is one sentence."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from ftp_cl.optim.names import canonical_name
from ftp_cl.projection import Storage
from ftp_cl.projection.checks import COMPUTED, number, problem_of

if TYPE_CHECKING:
    from torch.distributed.optim import ZeroRedundancyOptimizer

Follower = TypeVar("Follower")


def check_k(k: float) -> None:
    """Raise a ValueError for a factor outside [0, 1]."""
    if not 0 <= number(k) <= 1:
        raise ValueError(f"k={k!r} lies outside [0, 1]; 1 is the paper's default, 0 lets radii only grow.")


METHODS = ("paper", "exact", "one_pass")


def storage(
    method: str,
    direction_dtype: torch.dtype | str | None,
    anchor_dtype: torch.dtype | str | None,
    anchor_device: torch.device | str | None,
) -> Storage:
    """What these ask for; raise a ValueError for a dtype or device that cannot hold it."""
    if method == "one_pass" and direction_dtype is not None:
        raise ValueError(f"direction_dtype={direction_dtype!r} has no use in one pass, which keeps no direction.")
    try:
        device = None if anchor_device is None else torch.empty(0, device=anchor_device).device
    except (RuntimeError, TypeError, AssertionError, ImportError):  # all of them torch's, by kind of device
        device = torch.device("meta")
    if device is not None and device.type == "meta":
        raise ValueError(f"anchor_device={anchor_device!r} is no device that holds numbers here; try 'cpu'.")
    dtypes = _dtype("direction_dtype", direction_dtype), _dtype("anchor_dtype", anchor_dtype)
    return Storage(*dtypes, device, keeps_change=method != "one_pass")


def _dtype(option: str, given: torch.dtype | str | None) -> torch.dtype | None:
    if isinstance(given, str):
        named = getattr(torch, given, None)
        if not isinstance(named, torch.dtype):
            raise ValueError(f"{option}={given!r} is no dtype of torch; try 'bfloat16'.")
        given = named
    if given is not None and given not in COMPUTED:
        raise ValueError(f"{option}={given} cannot be computed with; try 'bfloat16'.")
    return given


def check_precision(name: str, parameter: nn.Parameter, method: str) -> None:
    """Raise a ValueError for half-precision weights in one pass."""
    if method == "one_pass" and parameter.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"{name} is of {parameter.dtype}, in which changes are lost that are smaller than a weight's last bit, and "
            "method='one_pass' reads directions off the weights: keep them in float32, or use method='paper'."
        )


def check_rounding(name: str, exact: Tensor, anchor: Tensor) -> None:
    """Raise a ValueError for an anchor that another dtype does not hold exactly."""
    if not torch.equal(anchor.to(exact), exact):
        raise ValueError(
            f"anchor_dtype={anchor.dtype} would round the anchor of {name}, which moves weights by more than a first "
            "radius: leave it out, or say round_anchor=True to stay near the rounded anchor"
        )


def check_anchor(
    anchor: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], complete: bool
) -> dict[str, Tensor]:
    """The anchor by canonical name: copies, because a state dict moves along with the weights.

    Args:
        anchor: weights by name, such as a state dict.
        parameters: those that it is for, by canonical name.
        complete: whether it must have all of them that are trained.

    Raises:
        TypeError: if it is no mapping from names.
        ValueError: if a tensor is missing, has another shape, or is no dense tensor of finite real numbers.
    """
    values = anchor_values(anchor)
    for name, parameter in parameters.items():
        if name in values:
            check_value(name, values[name], parameter)
        elif complete and parameter.requires_grad:
            raise ValueError(f"The anchor has no tensor {name!r}; exclude it or pass weights for it.")
    return {name: value for name, value in values.items() if problem_of(value) is None}


def anchor_values(anchor: Mapping[str, Any]) -> dict[str, Any]:
    """By canonical name, copies of the tensors; what is no tensor of real numbers, such as a counter, as it is.

    Raises:
        TypeError: if it is no mapping from names.
    """
    if not isinstance(anchor, Mapping):
        raise TypeError(
            f"anchor takes weights by name, such as a state dict, not {anchor!r:.50}; FTPPlugin reads files, too."
        )
    for name in anchor:
        if not isinstance(name, str):
            raise TypeError(f"anchor takes weights by name, and {name!r:.50} is no name.")
    return {
        canonical_name(name): value if problem_of(value) else value.detach().clone() for name, value in anchor.items()
    }


def check_value(name: str, value: Any, parameter: nn.Parameter) -> None:
    """Raise a ValueError for a value of an anchor that cannot be the anchor of this parameter."""
    if problem := problem_of(value):
        raise ValueError(f"The anchor's {name!r} {problem}.")
    if value.shape != parameter.shape:
        raise ValueError(f"The anchor's {name!r} has shape {tuple(value.shape)}, the model's {tuple(parameter.shape)}.")
    if not torch.isfinite(value.to(parameter.dtype)).all():
        raise ValueError(f"The anchor's {name!r} is not finite: no weights can stay near it.")


def stepping(optimizer: Any) -> Optimizer:
    """The optimizer whose own step changes the weights: SAM and its relatives hold it, and undo what they do before.

    Raises:
        TypeError: for what is no torch optimizer, has none of torch's hooks, holds another one whose steps these hooks
            may not see, or evaluates other weights than it trains.
    """
    kind, held = type(optimizer).__name__, _held(optimizer)
    if is_zero(optimizer):
        if optimizer._overlap_with_ddp:
            raise TypeError(f"{kind} steps during the backward pass, where hooks miss it: use overlap_with_ddp=False.")
        return optimizer
    if len(held) == 1 and all(callable(getattr(optimizer, part, None)) for part in ("first_step", "second_step")):
        return stepping(*held.values())
    way_out = "unwrap it first (the real optimizer is often its attribute `optimizer` or `opt`)."
    if held:
        way_out = f"attach to its attribute {' or '.join(f'`{name}`' for name in held)}."
    if all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval")):
        raise TypeError(
            f"{kind} has train() and eval(), as schedule-free optimizers do, which evaluate other weights than they "
            f"train: those would leave their balls{f'. If it only passes these calls on, {way_out}' if held else '.'}"
        )
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"attach() takes a torch.optim.Optimizer, not {kind}: {way_out}")
    if not all(hasattr(optimizer, f"_optimizer_{hooks}_hooks") for hooks in ("step_pre", "state_dict_post")):
        raise TypeError(f"{kind} does not call Optimizer.__init__, so that torch gives it no hooks: {way_out}")
    if held:
        raise TypeError(
            f"{kind} holds another optimizer, and not all that moves weights may be seen from outside: {way_out} What "
            f"{kind} itself then does to weights after a step is not projected."
        )
    return optimizer


def is_zero(optimizer: Any) -> "TypeGuard[ZeroRedundancyOptimizer]":
    """Whether it is torch's ZeroRedundancyOptimizer, after whose step all processes have all weights."""
    if not distributed.is_available():
        return False
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return isinstance(optimizer, ZeroRedundancyOptimizer)


def followers(optimizer: Any, kind: type[Follower]) -> list[Follower]:
    """Objects of a kind that follow the steps of an optimizer, or of the one that it holds, by a method as hook.

    Raises:
        TypeError: as `stepping`.
    """
    hooks = stepping(optimizer)._optimizer_step_post_hooks.values()
    owners = [getattr(inspect.unwrap(hook, stop=inspect.ismethod), "__self__", None) for hook in hooks]
    return [owner for owner in owners if isinstance(owner, kind)]


def _held(optimizer: Any) -> dict[str, Optimizer]:
    """Optimizers that an object has as attributes, or in lists or mappings there; not one whose hooks are its own."""
    own = getattr(optimizer, "_optimizer_step_post_hooks", None)
    held = {}
    for name, value in getattr(optimizer, "__dict__", {}).items():
        several = value.values() if isinstance(value, Mapping) else value
        for other in several if isinstance(value, (Mapping, list, tuple)) else [value]:
            shared = own is not None and getattr(other, "_optimizer_step_post_hooks", None) is own
            if isinstance(other, Optimizer) and not shared:
                held[name] = other
    return held


def check_kind(name: str, parameter: nn.Parameter, gradient: Tensor) -> None:
    """Raise a ValueError for complex weights and sparse gradients."""
    if parameter.dtype.is_complex:
        raise ValueError(f"{name} is complex; FTP projects real weights only: exclude it.")
    if gradient.layout != torch.strided:
        raise ValueError(f"{name} has a sparse gradient; FTP needs dense ones: exclude it or use sparse=False.")
