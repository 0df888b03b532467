"""Gradient episodic memory, if its solver is there."""

import importlib.util

from avalanche.training.plugins import GEMPlugin


class GEM(GEMPlugin):
    """Avalanche's plugin (Lopez-Paz and Ranzato 2017, arXiv 1706.08840).

    Args:
        patterns_per_experience: images that are stored of each experience.
        memory_strength: margin in favour of earlier experiences.

    Raises:
        ValueError: if the solver that it calls is not installed.
    """

    def __init__(self, patterns_per_experience: int, memory_strength: float) -> None:
        if importlib.util.find_spec("quadprog") is None:
            raise ValueError("method=gem needs a solver (pip install 'ftp-cl[gem]' or quadprog), or use method=agem.")
        super().__init__(patterns_per_experience, memory_strength)
