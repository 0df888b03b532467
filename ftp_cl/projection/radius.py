"""The radius of one tensor's ball, learned by Adam from votes (arXiv 2310.19182, equations 6 to 9)."""

import math
from dataclasses import asdict, dataclass

SMALLEST_RADIUS = 1e-8
"""The radius at a tensor's first step, and its lower bound ever after, as published."""


def moved(
    value: float, first: float, second: float, steps: float, vote: float, k: float, mu: float
) -> tuple[float, float, float, float]:
    """A radius, its two moments and its number of steps, one step along a vote; see `Radius.after`.

    Plain floats, because the compiled loops have this function, too.
    """
    steps += 1.0
    if steps == 1.0:
        return value, first, second, steps
    d = k * vote if vote > 0 else vote
    first = 0.9 * first + 0.1 * d
    second = 0.999 * second + 0.001 * d * d
    # The bias correction counts the first step although it brought no vote: the published code does so.
    mean, deviation = first / (1 - 0.9**steps), math.sqrt(second / (1 - 0.999**steps))
    return max(value - mu * mean / (deviation + 1e-8), SMALLEST_RADIUS), first, second, steps


@dataclass(slots=True)
class Radius:
    """gamma and its Adam state, as Python floats: they are few, and in float64 they cannot lose small votes.

    Attributes:
        value: gamma, in units of a row's L1 norm.
        first_moment: running mean of the votes d.
        second_moment: running mean of d squared.
        steps: t, the steps in which the tensor had a usable gradient.
    """

    value: float = SMALLEST_RADIUS
    first_moment: float = 0.0
    second_moment: float = 0.0
    steps: int = 0

    def after(self, vote: float, *, k: float, mu: float) -> "Radius":
        """The radius one step along `vote` (d, the loss's derivative by gamma in the paper's sign).

        Args:
            vote: positive shrinks the ball. Ignored at the first step, when there is no previous change to vote on.
            k: factor in [0, 1] on positive votes (gradient annealing).
            mu: Adam's step size for gamma.
        """
        value, first, second, steps = moved(
            self.value, self.first_moment, self.second_moment, float(self.steps), vote, k, mu
        )
        return Radius(value, first, second, int(steps))

    def clip(self, largest_row: float) -> None:
        """Bound gamma by the largest row norm of the current change.

        Weights of the current step do not depend on it (no row is longer than the largest), so it may follow them.
        """
        if self.steps > 1 and largest_row < self.value:
            self.value = largest_row

    def state_dict(self) -> dict[str, float | int]:
        """Plain numbers, one for each attribute."""
        return asdict(self)
