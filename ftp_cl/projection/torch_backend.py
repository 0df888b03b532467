"""Vote and project in plain torch, on any device."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, as_rows, same_layout
from ftp_cl.projection.tensor_state import TensorState

ELEMENTS_AT_ONCE = 1 << 17
"""Rows of large tensors on CPU, and small tensors, are worked on in blocks of about so many elements.

Temporaries of that size stay in the cache, and it takes less time to copy small tensors together than to call torch's
operations for each.
"""


class TorchBackend:
    """See `Backend`. Temporaries are of a block's size on CPU, of one tensor's elsewhere."""

    name = "torch"

    def votes(self, gradients: Pairs) -> list[Tensor]:
        """See `Backend.votes`."""
        return _in_groups(gradients, _vote, _votes_of_equals)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        norms = to_floats(_in_groups(weights, _project, _project_equals))
        return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, norms, strict=True)]


def _in_groups(
    pairs: Pairs, work: Callable[[TensorState, Tensor], Tensor], work_on_equals: Callable[[Pairs], Sequence[Tensor]]
) -> list[Tensor]:
    """Results for each pair, in order; small tensors that differ in nothing but their numbers are taken together."""
    groups: dict[Any, list[int]] = {}
    for i, (state, tensor) in enumerate(pairs):
        groups.setdefault(_kind(state, tensor) or i, []).append(i)
    results: dict[int, Tensor] = {}
    for group in groups.values():
        at_once = max(1, ELEMENTS_AT_ONCE // pairs[group[0]][1].numel())
        for start in range(0, len(group), at_once):
            indices = group[start : start + at_once]
            if len(indices) == 1:
                results[indices[0]] = work(*pairs[indices[0]])
            else:
                results.update(zip(indices, work_on_equals([pairs[i] for i in indices]), strict=True))
    return [results[i] for i in range(len(pairs))]


def _kind(state: TensorState, tensor: Tensor) -> tuple | None:
    """What tensors must have in common to be stacked; None: this one cannot be."""
    anchor, change = state.anchor, state.change
    if tensor.shape != anchor.shape or not (tensor.is_contiguous() and anchor.is_contiguous()):
        return None
    return tensor.shape, tensor.dtype, tensor.device, anchor.dtype, change.dtype


def _rows_of_equals(tensors: Sequence[Tensor], rows: int) -> Tensor:
    """Contiguous tensors of one shape as a new one of shape [tensors, rows, elements per row]."""
    return torch.stack(list(tensors)).view(len(tensors), rows, -1)


def _votes_of_equals(gradients: Pairs) -> Sequence[Tensor]:
    """As `_vote`, for tensors of one kind."""
    norms = torch.stack([state.norms for state, _ in gradients])
    rows, precise = norms.shape[1], accumulation_dtype(gradients[0][1].dtype)
    dots = _rows_of_equals([gradient for _, gradient in gradients], rows).to(precise)
    dots = dots.mul_(_rows_of_equals([state.change for state, _ in gradients], rows)).sum(dim=2)
    return dots.div(norms).sum(dim=1).unbind()


def _project_equals(weights: Pairs) -> Sequence[Tensor]:
    """As `_project`, for tensors of one kind."""
    states, tensors = [state for state, _ in weights], [tensor for _, tensor in weights]
    rows, first = states[0].norms.numel(), tensors[0]
    anchors = _rows_of_equals([state.anchor.to(first.device) for state in states], rows)
    changes = _rows_of_equals(tensors, rows).sub_(anchors)
    norms = _norms(changes)
    radii = torch.tensor([state.radius.value for state in states], dtype=norms.dtype, device=first.device)
    projected = torch.addcmul(anchors, changes, (radii.view(-1, 1) / norms).clamp_(max=1.0).unsqueeze(2), out=anchors)
    shape = (len(states), *first.shape)
    torch._foreach_copy_(tensors, projected.view(shape).unbind())
    torch._foreach_copy_([state.change for state in states], changes.view(shape).unbind())
    torch._foreach_copy_([state.norms for state in states], norms.unbind())
    return norms.amax(dim=1).unbind()


def _norms(changes: Tensor) -> Tensor:
    """Row norms of a temporary, whose last dimension is a row."""
    # The sum of a temporary takes half the time of torch.linalg.vector_norm on CPU.
    return changes.abs().sum(dim=-1, dtype=accumulation_dtype(changes.dtype)).add_(NORM_EPSILON)


def _vote(state: TensorState, gradient: Tensor) -> Tensor:
    """The vote of one tensor, 0-d."""
    gradient, change = state.covered(gradient), state.change
    if not same_layout(gradient, change):
        gradient = torch.empty_like(change, dtype=gradient.dtype).copy_(gradient)
    precise = accumulation_dtype(gradient.dtype)
    dots = torch.empty_like(state.norms, dtype=precise)
    for g, c, d in _blocks(as_rows(gradient), as_rows(change), dots):
        torch.sum(torch.mul(g.to(precise), c), dim=1, out=d)
    return dots.div(state.norms).sum()


def _project(state: TensorState, weights: Tensor) -> Tensor:
    """Project one tensor; returns the largest row norm of its change, 0-d."""
    weights, anchor = state.covered(weights), state.anchor.to(weights.device)
    dense = weights
    if not same_layout(weights, anchor):
        dense = torch.empty_like(anchor).copy_(weights)
    radius = state.radius.value
    for w, a, c, n in _blocks(as_rows(dense), as_rows(anchor), as_rows(state.change), state.norms):
        change = torch.sub(w, a, out=c) if c.dtype == w.dtype else torch.sub(w, a)
        norms = _norms(change)
        ratio = norms.reciprocal().mul_(radius).clamp_(max=1.0)
        torch.addcmul(a, change, ratio.unsqueeze(1), out=w)
        n.copy_(norms)
        if change is not c:
            c.copy_(change)
    if dense is not weights:
        weights.copy_(dense)
    return state.norms.max()


def _blocks(first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The same rows of each tensor, block by block; all at once where memory traffic is not what limits."""
    if first.device.type != "cpu" or first.numel() <= ELEMENTS_AT_ONCE:
        return [(first, *others)]
    rows = max(1, ELEMENTS_AT_ONCE * len(first) // first.numel())
    return zip(*(tensor.split(rows) for tensor in (first, *others)), strict=True)


def to_floats(values: Sequence[Tensor | float]) -> list[float]:
    """Numbers and 0-d tensors as numbers, with one transfer for each device and dtype."""
    floats: dict[int, float] = {}
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            kinds.setdefault((value.device, value.dtype), []).append(i)
        else:
            floats[i] = value
    for indices in kinds.values():
        numbers = torch.stack([values[i] for i in indices]).tolist()  # type: ignore[misc]  # tensors only
        floats.update(zip(indices, numbers, strict=True))
    return [floats[i] for i in range(len(values))]
