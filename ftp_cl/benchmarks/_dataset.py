"""What the datasets here have in common: they live in memory and are pickled as their constructor's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset


class InMemoryDataset(Dataset[tuple[Any, int]]):
    """A labelled dataset in memory that pickles to a few bytes: its class and the arguments that it was made with.

    Pickling, deep copying, sending to worker processes that are spawned, and Avalanche's checkpoints all read the data
    anew from the package instead of carrying it. Subclasses set ``targets`` and define ``constructor_arguments``.
    """

    targets: list[int]
    """The class index of each item."""

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal dataset."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Callable[..., InMemoryDataset], tuple[Any, ...]]:
        return _make, (type(self), self.constructor_arguments())


def _make(dataset_class: type[InMemoryDataset], arguments: dict[str, Any]) -> InMemoryDataset:
    return dataset_class(**arguments)
