"""The algorithm written down as literally as possible: slow, and the oracle of every fast version.

Fast Trainable Projection (FTP): Tian, Liu, Smith, Kira, NeurIPS 2023, arXiv 2310.19182, Algorithm 1, with the
row-wise L1 norm ("MARS") of TPGM (arXiv 2303.10720). One call is one step of one tensor; nothing is changed in place.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LiteralState:
    """What one tensor carries from step to step.

    Attributes:
        steps: t, the number of steps in which this tensor had a gradient.
        radius: gamma, in units of a row's L1 norm.
        first_moment: Adam's running mean of the vote d.
        second_moment: Adam's running mean of d squared.
        change: c', weights minus anchor in the previous step before projection; None before the first step.
        skipped: steps left out because a gradient or a weight was not finite.
    """

    steps: int = 0
    radius: float = 1e-8
    first_moment: float = 0.0
    second_moment: float = 0.0
    change: Tensor | None = None
    skipped: int = 0


def literal_step(
    state: LiteralState, weights: Tensor, anchor: Tensor, gradient: Tensor, *, k: float = 1.0, mu: float = 1e-2
) -> tuple[Tensor, LiteralState]:
    """One FTP step of one tensor, after the base optimizer's own step.

    Args:
        state: what the previous call returned; `LiteralState()` at first.
        weights: W~, the tensor after the base optimizer's step, of any shape.
        anchor: W0, the centre of the ball, of the same shape.
        gradient: g, the gradient which that step used.
        k: in [0, 1]; scales votes that shrink the radius (gradient annealing). 1 is the paper's default.
        mu: step size of the radius; 1e-2 as published.

    Returns:
        The projected weights and the next state.
    """
    if not torch.isfinite(gradient).all():
        return weights.clone(), replace(state, skipped=state.skipped + 1)
    change = weights - anchor
    if not torch.isfinite(change).all():
        # There is no change of this step to vote with in the next one.
        nothing = torch.zeros_like(change) if state.change is not None else None
        return weights.clone(), replace(state, skipped=state.skipped + 1, change=nothing)
    t = state.steps + 1
    radius, first, second = 1e-8, 0.0, 0.0
    if state.change is not None:
        d = _vote(gradient, state.change)
        if d > 0:
            d = k * d
        first = 0.9 * state.first_moment + 0.1 * d
        second = 0.999 * state.second_moment + 0.001 * d**2
        denominator = math.sqrt(second / (1 - 0.999**t)) + 1e-8
        radius = state.radius - mu * (first / (1 - 0.9**t)) / denominator
        largest = max(_row_norm(row) for row in _rows(change))
        radius = min(max(radius, 1e-8), largest)
    projected = anchor.clone()
    for new, centre, row in zip(_rows(projected), _rows(anchor), _rows(change), strict=True):
        ratio = min(1.0, radius / _row_norm(row))
        new.copy_(_precise(centre) + ratio * _precise(row))
    return projected, LiteralState(t, radius, first, second, change, state.skipped)


def _rows(tensor: Tensor) -> list[Tensor]:
    """The slices along dimension 0; a tensor with one dimension or none is one single row."""
    return list(tensor) if tensor.dim() > 1 else [tensor]


def _row_norm(row: Tensor) -> float:
    return _precise(row).abs().sum().item() + 1e-8


def _vote(gradient: Tensor, change: Tensor) -> float:
    """d, the sum over rows of <g_r, c'_r> / n_r(c'); 0 where it overflows, which is no vote at all."""
    d = sum(
        (_precise(g) * _precise(c)).sum().item() / _row_norm(c)
        for g, c in zip(_rows(gradient), _rows(change), strict=True)
    )
    return d if math.isfinite(d) else 0.0


def _precise(tensor: Tensor) -> Tensor:
    """Half precision is computed with in float32 and rounded once: 16 bits lose small rows."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
