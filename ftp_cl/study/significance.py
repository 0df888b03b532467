"""Decides whether one setting's lead over another holds, given what both reached on the same seeds."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

RULE = (
    "The best value of a column is bold only if its lead over the runner-up holds: the 95 % confidence interval of the "
    "mean paired difference over the seeds that both have in common (Student's t, at least three seeds) lies on the "
    "leader's side of 0, and no other row is ahead on common seeds."
)

# Two differences are often equal by chance, where a test has few images: their interval would have no width.
FEWEST_SEEDS = 3

# Results are stored with rounding errors below that, which are no lead.
_DIGITS = 6


def difference_holds(leader: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether one setting is above another: the 95 % interval of the mean paired difference lies above 0.

    Args:
        leader: {seed: value} of the one that is to be above.
        other: the same of the other. Only seeds that both have count.

    Returns:
        False with fewer than three common seeds.
    """
    low, _ = paired_interval(paired(leader, other))
    return low > 0


def is_behind(leader: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether one setting's mean is below another's on the seeds that both have."""
    differences = paired(leader, other)
    return len(differences) > 0 and round(float(np.mean(differences)), _DIGITS) < 0


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of paired differences (Student's t).

    Args:
        differences: one per seed; fewer than three exclude nothing.

    Returns:
        Its ends, rounded to six digits: results are stored with rounding errors below that, which must not make a
        difference.
    """
    if len(differences) < FEWEST_SEEDS:
        return -math.inf, math.inf
    half_width = stdtrit(len(differences) - 1, 0.975) * np.std(differences, ddof=1) / math.sqrt(len(differences))
    mean = float(np.mean(differences))
    return round(mean - half_width, _DIGITS), round(mean + half_width, _DIGITS)


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> list[float]:
    """Differences, first minus second, on the seeds that both have."""
    return [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
