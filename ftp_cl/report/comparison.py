"""Decides whether one setting's lead over another holds, given what both reached on the same seeds."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

RULE = (
    "The best value of a column is bold only if its lead over the runner-up holds: the 95 % confidence interval of the "
    "mean paired difference over the seeds that both have in common (Student's t, at least two seeds) excludes 0."
)


def difference_holds(first: Mapping[int, float], second: Mapping[int, float]) -> bool:
    """Whether the mean paired difference of two settings is told from 0 by its 95 % confidence interval.

    Args:
        first: {seed: value} of one setting.
        second: the same of the other. Only seeds that both have count.

    Returns:
        False with fewer than two common seeds: one seed shows no spread.
    """
    low, high = paired_interval([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])
    return low > 0 or high < 0


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of paired differences (Student's t).

    Args:
        differences: one per seed; fewer than two show no spread, so that nothing is excluded.

    Returns:
        Its ends, rounded to six digits: results are stored with rounding errors below that, which must not make a
        difference.
    """
    if len(differences) < 2:
        return -math.inf, math.inf
    half_width = stdtrit(len(differences) - 1, 0.975) * np.std(differences, ddof=1) / math.sqrt(len(differences))
    mean = float(np.mean(differences))
    return round(mean - half_width, 6), round(mean + half_width, 6)
