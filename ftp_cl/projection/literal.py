"""The algorithm written down as literally as possible: slow, and the oracle of every fast version.

Fast Trainable Projection (FTP): Tian, Liu, Smith, Kira, NeurIPS 2023, arXiv 2310.19182, Algorithm 1, with the
row-wise L1 norm ("MARS") of TPGM (arXiv 2303.10720). One call is one step of one tensor; nothing is changed in place.
"""

import math
from dataclasses import dataclass

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
        skipped: steps in which a gradient or some row of the weights was not finite.
    """

    steps: int = 0
    radius: float = 1e-8
    first_moment: float = 0.0
    second_moment: float = 0.0
    change: Tensor | None = None
    skipped: int = 0


def literal_step(
    state: LiteralState,
    weights: Tensor,
    anchor: Tensor,
    gradient: Tensor,
    *,
    k: float = 1.0,
    mu: float = 1e-2,
    before: Tensor | None = None,
) -> tuple[Tensor, LiteralState]:
    """One FTP step of one tensor, after the base optimizer's own step.

    What is not finite takes no part: a gradient whose vote is not finite has a vote of 0, and a row whose norm is not
    finite stays as the optimizer made it and has no change to vote with in the next step. Either is counted.

    Args:
        state: what the previous call returned; `LiteralState()` at first.
        weights: W~, the tensor after the base optimizer's step, of any shape.
        anchor: W0, the centre of the ball, of the same shape.
        gradient: g, the gradient which that step used.
        k: in [0, 1]; scales votes that shrink the radius (gradient annealing). 1 is the paper's default.
        mu: step size of the radius; 1e-2 as published.
        before: the weights before the optimizer's step, for the rule in one pass: they give the direction, the first
            radius is mu, and the vote counts in the next step.

    Returns:
        The projected weights and the next state.
    """
    t = state.steps + 1
    change = weights - anchor
    norms = [_row_norm(row) for row in _rows(change)]
    finite = [math.isfinite(norm) for norm in norms]
    if before is not None:
        direction = before - anchor
    else:
        direction = torch.zeros_like(change) if state.change is None else state.change
    d = _vote(gradient, direction)
    skipped = not (math.isfinite(d) and all(finite))
    if not math.isfinite(d) or t == 1:
        d = 0.0

    if before is None:
        start = 1e-8 if t == 1 else state.radius
        radius, first, second = _learned(state, start, d, t, k, mu)
    else:
        radius = mu if t == 1 else state.radius
    if t > 1 and any(finite):
        radius = min(radius, max(norm for norm in norms if math.isfinite(norm)))

    projected = weights.clone()
    for new, centre, row, norm in zip(_rows(projected), _rows(anchor), _rows(change), norms, strict=True):
        if math.isfinite(norm):
            new.copy_(_precise(centre) + min(1.0, radius / norm) * _precise(row))
        else:
            row.zero_()
    if before is not None:
        radius, first, second = _learned(state, radius, d, t, k, mu)
    return projected, LiteralState(t, radius, first, second, change, state.skipped + skipped)


def _learned(state: LiteralState, radius: float, d: float, t: int, k: float, mu: float) -> tuple[float, float, float]:
    """The radius one step along the vote, and its moments."""
    if d > 0:
        d = k * d
    first = 0.9 * state.first_moment + 0.1 * d
    second = 0.999 * state.second_moment + 0.001 * d**2
    denominator = math.sqrt(second / (1 - 0.999**t)) + 1e-8
    return max(radius - mu * (first / (1 - 0.9**t)) / denominator, 1e-8), first, second


def _rows(tensor: Tensor) -> list[Tensor]:
    """The slices along dimension 0; a tensor with one dimension or none is one single row."""
    return list(tensor) if tensor.dim() > 1 else [tensor]


def _row_norm(row: Tensor) -> float:
    return _precise(row).abs().sum().item() + 1e-8


def _vote(gradient: Tensor, change: Tensor) -> float:
    """d, the sum over rows of <g_r, c'_r> / n_r(c')."""
    return sum(
        (_precise(g) * _precise(c)).sum().item() / _row_norm(c)
        for g, c in zip(_rows(gradient), _rows(change), strict=True)
    )


def _precise(tensor: Tensor) -> Tensor:
    """Half precision is computed with in float32 and rounded once: 16 bits lose small rows."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
