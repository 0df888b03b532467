"""Checks of what FTP is given: a failure is one sentence."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ftp_cl.optim.names import canonical_name
from ftp_cl.projection import Storage


def check_k(k: float) -> None:
    """Raise a ValueError for a factor outside [0, 1]."""
    if not 0 <= number(k) <= 1:
        raise ValueError(f"k={k!r} lies outside [0, 1]; 1 is the paper's default, 0 lets radii only grow.")


def number(value: Any) -> float:
    """NaN for what is none; a 0-d tensor is one."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def storage(direction_dtype: torch.dtype | str | None, anchor_device: torch.device | str | None) -> Storage:
    """What these two ask for; raise a ValueError for a dtype or device that cannot hold it."""
    if isinstance(direction_dtype, str):
        named = getattr(torch, direction_dtype, None)
        if not isinstance(named, torch.dtype):
            raise ValueError(f"direction_dtype={direction_dtype!r} is no dtype of torch; try 'bfloat16'.")
        direction_dtype = named
    if direction_dtype is not None and not direction_dtype.is_floating_point:
        raise ValueError(f"direction_dtype={direction_dtype} does not hold fractions; try 'bfloat16'.")
    try:
        device = None if anchor_device is None else torch.device(anchor_device)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device is not None and device.type == "meta":
        raise ValueError(f"anchor_device={anchor_device!r} is no device that holds numbers; try 'cpu'.")
    return Storage(direction_dtype, device)


def check_anchor(
    anchor: Mapping[str, Tensor], projected: Mapping[str, nn.Parameter], complete: bool
) -> dict[str, Tensor]:
    """The anchor by canonical name, with copies of what are the weights themselves.

    Args:
        anchor: weights by name, such as a state dict.
        projected: the parameters that it is for, by canonical name.
        complete: whether it must have all of them.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if a tensor is missing or has another shape.
    """
    if not isinstance(anchor, Mapping):
        raise TypeError(
            f"anchor takes weights by name, such as a state dict, not {anchor!r}; FTPPlugin reads files, too."
        )
    checked = {canonical_name(name): value for name, value in anchor.items()}
    for name, parameter in projected.items():
        if name not in checked:
            if complete:
                raise ValueError(f"The anchor has no tensor {name!r}; exclude it or pass weights for it.")
        elif checked[name].shape != parameter.shape:
            raise ValueError(
                f"The anchor's {name!r} has shape {tuple(checked[name].shape)}, the model's {tuple(parameter.shape)}."
            )
        elif checked[name].data_ptr() == parameter.data_ptr():
            checked[name] = checked[name].detach().clone()  # `model.state_dict()` would move along
    return checked


def check_optimizer(optimizer: Any) -> None:
    """Raise a TypeError for what is no torch optimizer, or has none of torch's hooks."""
    kind, wrapped = type(optimizer).__name__, getattr(optimizer, "optimizer", None)
    way_out = "unwrap it first (the real optimizer is often its attribute `optimizer` or `opt`)."
    if isinstance(wrapped, Optimizer):
        way_out = "attach to its attribute `optimizer`."
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"attach() takes a torch.optim.Optimizer, not {kind}: {way_out}")
    if not all(hasattr(optimizer, f"_optimizer_{hooks}_hooks") for hooks in ("step_pre", "state_dict_post")):
        raise TypeError(f"{kind} does not call Optimizer.__init__, so that torch gives it no hooks: {way_out}")


def check_whole(name: str, parameter: nn.Parameter) -> None:
    """Raise a ValueError for a parameter that may be spread over processes."""
    # The marks of FSDP's first version, and of distributed tensors, which the second makes.
    if getattr(parameter, "_fsdp_flattened", False) or hasattr(parameter, "placements"):
        raise ValueError(
            f"{name} is one of FSDP's parameters or a distributed tensor; FTP needs plain tensors, whole in each "
            "process, as DistributedDataParallel has them."
        )


def check_kind(name: str, parameter: nn.Parameter, gradient: Tensor) -> None:
    """Raise a ValueError for complex weights and sparse gradients."""
    if parameter.dtype.is_complex:
        raise ValueError(f"{name} is complex; FTP projects real weights only: exclude it.")
    if gradient.layout != torch.strided:
        raise ValueError(f"{name} has a sparse gradient; FTP needs dense ones: exclude it or use sparse=False.")
