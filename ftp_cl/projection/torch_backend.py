"""Vote and project in plain torch, on any device."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, as_rows, same_layout
from ftp_cl.projection.tensor_state import TensorState

ELEMENTS_AT_ONCE = 1 << 17
"""Rows of large tensors on CPU, and small tensors, are worked on in blocks of about so many elements.

Temporaries of that size stay in the cache.
"""

SMALL = 1 << 13
"""Tensors of so many elements or fewer are taken together on CPU: copying them takes less time than torch's operations
on each. On a GPU, where launches are what takes time, it is `ELEMENTS_AT_ONCE`."""


class TorchBackend:
    """See `Backend`. Temporaries are of a block's size on CPU, of a block's or one tensor's elsewhere."""

    name = "torch"

    def votes(self, gradients: Pairs) -> list[Tensor | float]:
        """See `Backend.votes`."""
        return _small_ones_together(gradients, _vote, _votes_together)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        norms = to_floats(_small_ones_together(weights, _project, _project_together))
        return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, norms, strict=True)]


# ---- small tensors -------------------------------------------------------------------------------------------------


def _small_ones_together(
    pairs: Pairs,
    work: Callable[[TensorState, Tensor], Tensor],
    work_together: Callable[[Pairs], Sequence[Tensor | float]],
) -> list[Tensor | float]:
    """Results for each pair, in order."""
    results: dict[int, Tensor | float] = {}
    blocks: dict[Any, list[int]] = {}
    filled: dict[Any, int] = {}

    def finish(block: list[int]) -> None:
        if len(block) == 1:
            results[block[0]] = work(*pairs[block[0]])
        else:
            results.update(zip(block, work_together([pairs[i] for i in block]), strict=True))

    for i, (state, tensor) in enumerate(pairs):
        kind = _small_kind(state, tensor)
        if kind is None:
            results[i] = work(state, tensor)
            continue
        blocks.setdefault(kind, []).append(i)
        filled[kind] = filled.get(kind, 0) + tensor.numel()
        if filled[kind] >= ELEMENTS_AT_ONCE:
            finish(blocks.pop(kind))
            del filled[kind]
    for block in blocks.values():
        finish(block)
    return [results[i] for i in range(len(pairs))]


def _small_kind(state: TensorState, tensor: Tensor) -> tuple | None:
    """What small tensors must have in common to be put in a row; None: this one is not to be."""
    anchor, change = state.anchor, state.change
    if tensor.numel() > (SMALL if tensor.is_cpu else ELEMENTS_AT_ONCE) or not (tensor.is_cpu or tensor.is_cuda):
        return None
    if tensor.shape != anchor.shape or not (tensor.is_contiguous() and anchor.is_contiguous()):
        return None
    return tensor.dtype, tensor.device, anchor.device, change.dtype


@dataclass(frozen=True)
class _Segments:
    """The rows of several tensors in a row, each with its elements one after the other.

    Attributes:
        columns: elements of each row, shape [rows].
        rows: rows of each tensor, shape [tensors].
        tensor_of_row: shape [rows].
        row_of_element: shape [elements].
    """

    columns: Tensor
    rows: Tensor
    tensor_of_row: Tensor
    row_of_element: Tensor


def _segments_of(states: Sequence[TensorState], device: torch.device) -> _Segments:
    sizes = [(state.norms.numel(), state.anchor.numel()) for state in states]
    return _segments(tuple(sizes), device)


@lru_cache(maxsize=64)
def _segments(sizes: tuple[tuple[int, int], ...], device: torch.device) -> _Segments:
    """Kept, because steps usually work on the same tensors; `sizes` are rows and elements of each."""
    rows, elements = (torch.tensor(numbers, device=device) for numbers in zip(*sizes, strict=True))
    tensor_of_row = torch.arange(len(sizes), device=device).repeat_interleave(rows)
    columns = (elements // rows)[tensor_of_row]
    row_of_element = torch.arange(len(columns), device=device).repeat_interleave(columns)
    return _Segments(columns, rows, tensor_of_row, row_of_element.int())


def _sums(values: Tensor, lengths: Tensor) -> Tensor:
    """Sums of consecutive segments, in float64, because they are taken one number after the other."""
    return torch.segment_reduce(values.double(), "sum", lengths=lengths, unsafe=True)


def _numbers(values: Tensor) -> Sequence[Tensor | float]:
    """Each by itself: from a GPU, which may still be computing, as 0-d tensors."""
    return values.tolist() if values.is_cpu else values.unbind()


def _votes_together(gradients: Pairs) -> Sequence[Tensor | float]:
    """As `_vote`, for small tensors of one kind."""
    states = [state for state, _ in gradients]
    flat = _flatten_dense_tensors([gradient for _, gradient in gradients])
    segments = _segments_of(states, flat.device)
    products = flat.to(accumulation_dtype(flat.dtype)).mul_(_flatten_dense_tensors([state.change for state in states]))
    of_rows = _sums(products, segments.columns).div_(torch.cat([state.norms for state in states]))
    return _numbers(_sums(of_rows, segments.rows))


def _project_together(weights: Pairs) -> Sequence[Tensor | float]:
    """As `_project`, for small tensors of one kind."""
    states, tensors = [state for state, _ in weights], [tensor for _, tensor in weights]
    changes = _flatten_dense_tensors(tensors)
    anchors = _flatten_dense_tensors([state.anchor for state in states]).to(changes.device)
    segments = _segments_of(states, changes.device)
    changes.sub_(anchors)
    norms = _sums(changes.abs(), segments.columns).add_(NORM_EPSILON)
    radii = torch.tensor([state.radius.value for state in states], dtype=norms.dtype, device=norms.device)
    ratios = radii[segments.tensor_of_row].div_(norms).clamp_(max=1.0).to(accumulation_dtype(changes.dtype))
    projected = torch.addcmul(anchors, changes, ratios.index_select(0, segments.row_of_element), out=anchors)
    torch._foreach_copy_(tensors, _unflatten_dense_tensors(projected, tensors))
    torch._foreach_copy_([state.change for state in states], _unflatten_dense_tensors(changes, tensors))
    torch._foreach_copy_([state.norms for state in states], norms.split([state.norms.numel() for state in states]))
    return _numbers(torch.segment_reduce(norms, "max", lengths=segments.rows, unsafe=True))


# ---- one tensor ------------------------------------------------------------------------------------------------------


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
