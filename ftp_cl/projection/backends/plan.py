"""What stays the same from step to step for one tensor; asking torch for it takes longer than a small tensor."""

from dataclasses import dataclass

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


def still_fits(update: Update, *others: Tensor) -> bool:
    """Whether weights that the state follows and their gradient are in memory as the anchor is; quicker than asking.

    `others` have been found to be so before, and have as many elements still.
    """
    gradient, plan = update.gradient, update.state.plan
    return (
        plan is not None
        and plan.layout is not None
        and gradient.stride() == plan.stride == update.weights.stride()
        and gradient.dtype is plan.layout[1]
        and gradient.get_device() == plan.index
        and gradient.shape == plan.shape
        and all([tensor.numel() == plan.rows * plan.columns for tensor in others])
    )
