"""Vote and project in plain torch, on any device."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, as_rows, same_layout
from ftp_cl.projection.tensor_state import TensorState

ELEMENTS_AT_ONCE = 1 << 17
"""On CPU, rows are worked on in blocks of about so many elements: their temporaries stay in the cache."""


class TorchBackend:
    """See `Backend`. Temporaries are of a block's size on CPU, of one tensor's elsewhere."""

    name = "torch"

    def votes(self, gradients: Pairs) -> list[Tensor]:
        """See `Backend.votes`."""
        return [_vote(state, gradient) for state, gradient in gradients]

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        norms = to_floats([_project(state, tensor) for state, tensor in weights])
        return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, norms, strict=True)]


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
    radius, precise = state.radius.value, accumulation_dtype(weights.dtype)
    for w, a, c, n in _blocks(as_rows(dense), as_rows(anchor), as_rows(state.change), state.norms):
        change = torch.sub(w, a, out=c) if c.dtype == w.dtype else torch.sub(w, a)
        # The sum of a temporary takes half the time of torch.linalg.vector_norm on CPU.
        norms = torch.sum(change.abs(), dim=1, dtype=precise).add_(NORM_EPSILON)
        ratio = norms.reciprocal().mul_(radius).clamp_(max=1.0)
        torch.addcmul(a, change, ratio.unsqueeze(1), out=w)
        n.copy_(norms)
        if change is not c:
            c.copy_(change)
    if dense is not weights:
        weights.copy_(dense)
    return state.norms.max()


def _blocks(first: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each tensor, block by block; all at once where memory traffic is not what limits."""
    rows = len(first)
    if first.device.type == "cpu" and first.numel() > ELEMENTS_AT_ONCE:
        rows = max(1, ELEMENTS_AT_ONCE * rows // first.numel())
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
