"""Vote and project in plain torch, on any device."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.rows import accumulation_dtype, per_row, row_dots, row_norms
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
    votes = [(row_dots(g, c) / n).sum() for n, g, c in _blocks(state.norms, state.covered(gradient), state.change)]
    return votes[0] if len(votes) == 1 else torch.stack(votes).sum()


def _project(state: TensorState, weights: Tensor) -> Tensor:
    """Project one tensor; returns the largest row norm of its change, 0-d."""
    anchor = state.anchor.to(weights.device)
    for n, w, a, c in _blocks(state.norms, state.covered(weights), anchor, state.change):
        change = c if c.dtype == w.dtype else torch.empty_like(c, dtype=w.dtype)
        torch.sub(w, a, out=change)
        if change is not c:
            c.copy_(change)
        torch.add(row_norms(change), 0.0, out=n)
        ratio = (state.radius.value / n).clamp_(max=1.0).to(accumulation_dtype(w.dtype))
        torch.addcmul(a, change, per_row(ratio, w), out=w)
    return state.norms.max()


def _blocks(norms: Tensor, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The norms and tensors in blocks of the same rows, all at once where memory traffic is not what limits."""
    first = tensors[0]
    rows = len(norms)
    if first.device.type != "cpu" or first.numel() <= ELEMENTS_AT_ONCE or rows == 1:
        yield norms, *tensors
        return
    step = max(1, ELEMENTS_AT_ONCE * rows // first.numel())
    for start in range(0, rows, step):
        count = min(step, rows - start)
        yield tuple(tensor.narrow(0, start, count) for tensor in (norms, *tensors))


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
