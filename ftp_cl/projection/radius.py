"""The radius of one tensor's ball, learned by Adam from votes (arXiv 2310.19182, equations 6 to 9).

A tensor's radius, its moments and its counts are the numbers of one line, in the order of `NUMBERS`, where the weights
are. `begin`, `learn` and `clip` are written on such a line of plain floats, for compiled loops, and `begun`, `learned`
and `clipped` on all lines of a step at once, for plain torch.
"""

import math
from collections.abc import MutableSequence, Sequence

import torch
from torch import Tensor

SMALLEST_RADIUS = 1e-8
"""The radius at a tensor's first step, and its lower bound ever after, as published."""

NUMBERS = ("value", "first_moment", "second_moment", "steps", "skipped")
"""gamma, in units of a row's L1 norm; running means of the votes and of their squares; t, the steps in which the tensor
had a gradient; those of them in which something was not finite."""

VALUE, FIRST, SECOND, STEPS, SKIPPED = range(len(NUMBERS))


def begin(line: MutableSequence[float], first_radius: float) -> None:
    """Count a step; the first one sets the radius."""
    line[3] += 1.0
    if line[3] == 1.0:
        line[0] = first_radius


def learn(line: MutableSequence[float], vote: float, k: float, mu: float) -> None:
    """Move the radius one step along a vote (d, the loss's derivative by gamma in the paper's sign).

    Args:
        line: the tensor's numbers.
        vote: positive shrinks the ball. None is taken at the first step, when there is no previous change to vote on,
            and where it is not finite.
        k: factor in [0, 1] on positive votes (gradient annealing).
        mu: Adam's step size for gamma.
    """
    d = vote if line[3] > 1.0 and abs(vote) < math.inf else 0.0
    d = k * d if d > 0 else d
    line[1] = 0.9 * line[1] + 0.1 * d
    line[2] = 0.999 * line[2] + 0.001 * d * d
    # The bias correction counts the first step although it brought no vote: the published code does so.
    mean, deviation = line[1] / (1 - 0.9 ** line[3]), math.sqrt(line[2] / (1 - 0.999 ** line[3]))
    line[0] = max(line[0] - mu * mean / (deviation + 1e-8), SMALLEST_RADIUS)


def clip(line: MutableSequence[float], largest_row: float) -> None:
    """Bound the radius by the largest row norm of the current change; 0 is the norm of none.

    Weights of the current step do not depend on it (no row is longer than the largest), so it may follow them.
    """
    if line[3] > 1.0 and 0.0 < largest_row < line[0]:
        line[0] = largest_row


def begun(numbers: Tensor, first_radius: float) -> Tensor:
    """`begin` of each line of `numbers`, shape [tensors, len(NUMBERS)], as a copy."""
    numbers = numbers.clone()
    numbers[:, STEPS] += 1
    numbers[:, VALUE].masked_fill_(numbers[:, STEPS] == 1, first_radius)
    return numbers


def learned(numbers: Tensor, votes: Tensor, k: Tensor | float, mu: float) -> None:
    """`learn` of each line, in place; `votes` has shape [tensors], k too or is one number."""
    value, first, second, steps = numbers.unbind(1)[:SKIPPED]
    d = votes.where((steps > 1) & votes.isfinite(), 0.0)
    d = d.where(d <= 0, k * d)
    first.mul_(0.9).add_(d, alpha=0.1)
    second.mul_(0.999).addcmul_(d, d, value=0.001)
    mean, deviation = first / (1 - 0.9**steps), (second / (1 - 0.999**steps)).sqrt_()
    value.sub_(mean.mul_(mu).div_(deviation.add_(1e-8))).clamp_(min=SMALLEST_RADIUS)


def clipped(numbers: Tensor, largest_rows: Tensor) -> None:
    """`clip` of each line, in place; `largest_rows` has shape [tensors]."""
    value, steps = numbers[:, VALUE], numbers[:, STEPS]
    value.copy_(torch.minimum(value, largest_rows).where((steps > 1) & (largest_rows > 0), value))


def named(line: Sequence[float]) -> dict[str, float | int]:
    """The numbers of a line by name, counts as whole numbers."""
    return {
        name: int(number) if name in ("steps", "skipped") else number
        for name, number in zip(NUMBERS, line, strict=True)
    }
