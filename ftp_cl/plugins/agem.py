"""Averaged gradient episodic memory whose draws from memory can be repeated."""

import random
from typing import Any

from avalanche.benchmarks.utils.data_loader import GroupBalancedInfiniteDataLoader
from avalanche.training.plugins import AGEMPlugin

from ftp_cl.plugins.randomness import LoaderRandomness


class AGEM(AGEMPlugin):
    """Avalanche's plugin, but for the random numbers by which it draws from memory.

    Avalanche's holds an iterator that draws from the global generators, whose state nothing can save. Here the
    iterator has generators of its own: where they began and how often was drawn says where it is.

    Args:
        patterns_per_experience: images that are stored of each experience.
        sample_size: images for one reference gradient.
    """

    def __init__(self, patterns_per_experience: int, sample_size: int) -> None:
        super().__init__(patterns_per_experience, sample_size)
        self._randomness = LoaderRandomness(0)
        self._began = self._randomness.state
        self._drawn = 0

    def state_dict(self) -> dict[str, Any]:
        """The memory, and where the iterator over it is."""
        return {"buffers": self.buffers, "began": self._began, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """The inverse of `state_dict`: what was drawn is drawn again."""
        self.buffers = state["buffers"]
        self._begin(state["began"])
        for _ in range(state["drawn"]):
            self.sample_from_memory()

    def update_memory(self, dataset: Any, **kwargs: Any) -> None:
        """As Avalanche's, and begin to draw anew."""
        super().update_memory(dataset, **kwargs)
        self._begin(LoaderRandomness(random.getrandbits(31)).state)

    def sample_from_memory(self) -> Any:
        """One batch."""
        self._drawn += 1
        with self._randomness.use():
            return next(self.buffer_dliter)

    def _begin(self, state: dict[str, Any]) -> None:
        self._began = self._randomness.state = state
        self._drawn = 0
        if self.buffers:
            share = self.sample_size // len(self.buffers)
            self.buffer_dliter = iter(GroupBalancedInfiniteDataLoader(self.buffers, batch_size=share))
