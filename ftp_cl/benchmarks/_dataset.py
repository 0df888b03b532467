"""What the datasets here have in common: they are pickled as the arguments that they were made with."""

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch.utils.data import Dataset


class LabelledDataset(Protocol):
    """A map-style dataset of ``(input, class index)`` that also lists its class indices, as torchvision's do."""

    @property
    def targets(self) -> Sequence[int]:
        """The class index of each item."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...


class NamedDataset(LabelledDataset, Protocol):
    """A labelled dataset that also names its classes, as torchvision's do."""

    @property
    def classes(self) -> Sequence[str]:
        """The name of each class index."""


class RebuildableDataset(Dataset[tuple[Any, int]]):
    """A labelled dataset that pickles to its class and the arguments that it was made with.

    Pickling, deep copying, sending to worker processes that are spawned, and Avalanche's checkpoints all read the data
    anew from where it lies instead of carrying it. Subclasses set ``targets``, and keep what they were made with under
    the names of their parameters.
    """

    targets: Sequence[int]
    """The class index of each item."""

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal dataset: those that this one has kept."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters if hasattr(self, name)}

    def image_identity(self, index: int) -> Hashable:
        """Return what an image has in common with itself in other sizes and styles, and with no other image.

        By it, images of one part are found in another. None if only the pixels tell.
        """
        return None

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Callable[..., "RebuildableDataset"], tuple[Any, ...]]:
        return _make, (type(self), self.constructor_arguments())


class ArrayDataset(RebuildableDataset):
    """A labelled dataset whose images are one array in memory, or one mapped from disk.

    An item is ``(image, target)``: a PIL image in RGB and the class index.
    """

    data: np.ndarray
    """uint8 [N, height, width, 3]."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        # A copy, so that a transform that works in place cannot change the data.
        return Image.fromarray(np.array(self.data[index])), self.targets[index]


class DerivedDataset(RebuildableDataset):
    """The items of another dataset, changed when they are read. Subclasses set ``source``."""

    source: Any

    @property
    def targets(self) -> Sequence[int]:  # type: ignore[override]
        """The class index of each item; a source that has none is not asked before."""
        return self.source.targets

    def __len__(self) -> int:
        return len(self.source)


def _make(dataset_class: type[RebuildableDataset], arguments: dict[str, Any]) -> RebuildableDataset:
    return dataset_class(**arguments)
