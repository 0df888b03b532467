"""What stays the same from step to step for one tensor; asking torch for it takes longer than a small tensor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection.backends.protocol import Update
from ftp_cl.projection.rows import same_layout
from ftp_cl.projection.tensor_state import TensorState

Layout = tuple[torch.device, torch.dtype, torch.dtype, torch.dtype | None]
"""Device of all tensors, dtype of weights and gradient, that of the anchor, and that of the change, if one is kept."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """Of the tensors of a state. It is equal to itself only: a state whose tensors are replaced gets another one.

    Attributes:
        shape: of the anchor.
        stride: of the anchor.
        index: of the device; -1: the CPU.
        layout: None: the tensors are not on one device.
        rows: number of rows.
        columns: elements per row.
        addresses: of numbers, norms, change (0 for none) and anchor.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    index: int
    layout: Layout | None
    rows: int
    columns: int
    addresses: tuple[int, int, int, int]


def plan_of(state: TensorState) -> Plan:
    """The state's plan, made if there is none."""
    if state.plan is None:
        anchor, change, rows = state.anchor, state.change, state.norms.numel()
        device = state.numbers.device
        together = anchor.device == device and (change is None or change.device == device)
        kept = None if change is None else change.dtype
        state.plan = Plan(
            shape=anchor.shape,
            stride=anchor.stride(),
            index=state.numbers.get_device(),
            layout=(device, state.followed_dtype, anchor.dtype, kept) if together else None,
            rows=rows,
            columns=anchor.numel() // max(1, rows),
            addresses=(
                state.numbers.data_ptr(),
                state.norms.data_ptr(),
                0 if change is None else change.data_ptr(),
                anchor.data_ptr(),
            ),
        )
    plan: Plan = state.plan
    return plan


def layout_of(update: Update, *others: Tensor) -> Layout | None:
    """What loops over memory must know alike of several tensors; None: they cannot take these.

    Weights, gradient and `others` must be of one dtype, on the state's device, and in memory as the anchor is.
    """
    state = update.state
    plan: Plan = state.plan or plan_of(state)
    if plan.layout is None:
        return None
    dtype, stride, shape, index = plan.layout[1], plan.stride, plan.shape, plan.index
    for tensor in (update.weights, update.gradient, *others):
        if tensor.dtype is not dtype or tensor.get_device() != index:
            return None
        same = tensor.stride() == stride and tensor.shape == shape
        if not same and not same_layout(state.covered(tensor), state.anchor):
            return None
    return plan.layout


_LAYOUT: Any = Tensor.layout.__get__  # type: ignore[attr-defined]
_ASKED: Any = (Tensor.shape.__get__, Tensor.stride, Tensor.dtype.__get__, Tensor.get_device)  # type: ignore[attr-defined]


def kinds_of(tensors: Sequence[Tensor]) -> list[list[Any]] | None:
    """What `layout_of` asks of each; all at once, which is several times quicker. None: one of them is not dense."""
    if list(map(_LAYOUT, tensors)).count(torch.strided) < len(tensors):
        return None
    return [list(map(ask, tensors)) for ask in _ASKED]
