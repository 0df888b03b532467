"""Decides whether one setting's lead over another holds, given what both reached on the same seeds."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom; for more, the last is used (on the safe side).
T_QUANTILES = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)

RULE = (
    "The best value of a column is bold only if its lead over the runner-up holds: the 95 % confidence interval of the "
    "mean paired difference over the seeds that both have in common (Student's t, at least two seeds) lies on the "
    "leader's side of 0, and no other row is ahead on common seeds."
)

# Results are stored with rounding errors below that, which are no lead.
_DIGITS = 6


def difference_holds(leader: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether one setting is above another: the 95 % interval of the mean paired difference lies above 0.

    Args:
        leader: {seed: value} of the one that is to be above.
        other: the same of the other. Only seeds that both have count.

    Returns:
        False with fewer than two common seeds: one seed shows no spread.
    """
    differences = _paired(leader, other)
    if len(differences) < 2:
        return False
    degrees = min(len(differences) - 1, len(T_QUANTILES))
    half_width = T_QUANTILES[degrees - 1] * differences.std(ddof=1) / math.sqrt(len(differences))
    return bool(round(differences.mean() - half_width, _DIGITS) > 0)


def is_behind(leader: Mapping[int, float], other: Mapping[int, float]) -> bool:
    """Whether one setting's mean is below another's on the seeds that both have."""
    differences = _paired(leader, other)
    return len(differences) > 0 and bool(round(differences.mean(), _DIGITS) < 0)


def _paired(first: Mapping[int, float], second: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])
