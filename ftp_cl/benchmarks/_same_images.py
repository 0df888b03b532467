"""Whether two streams show the same images, in whatever size, style or split they are read."""

import copy
import hashlib
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import numpy as np
from avalanche.benchmarks.scenarios import CLExperience
from numpy.typing import NDArray
from torch.utils.data import Subset
from torchvision.datasets import VisionDataset

from ftp_cl.benchmarks._copies import values_of
from ftp_cl.benchmarks._dataset import DerivedDataset, RebuildableDataset
from ftp_cl.benchmarks._sources import sources

Images = list[tuple[Any, NDArray[np.int64]]]
"""Raw datasets, and which of their items."""


def images_of(experiences: Iterable[CLExperience]) -> Images:
    """Return where the images of a stream come from, before they were corrupted, relabelled or picked out."""
    return [_unwrapped(s.raw, s.indices) for experience in experiences for s in sources(experience.dataset)]


def _unwrapped(raw: Any, indices: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
    if isinstance(raw, Subset):
        return _unwrapped(raw.dataset, np.asarray(raw.indices, np.int64)[indices])
    return _unwrapped(raw.source, indices) if isinstance(raw, DerivedDataset) else (raw, indices)


def have_identities(images: Images) -> bool:
    """Return whether the datasets of all images say which image is which."""
    return all(_identity(raw, int(indices[0])) is not None for raw, indices in images)


def keys_of(images: Images, by_pixels: bool) -> set[Hashable]:
    """Return what tells images from others: where they come from, and with ``by_pixels`` what they look like."""
    return {key for raw, indices in images for index in indices for key in _keys(raw, int(index), by_pixels)}


def _identity(raw: Any, index: int) -> Hashable:
    return raw.image_identity(index) if isinstance(raw, RebuildableDataset) else None


def _keys(raw: Any, index: int, by_pixels: bool) -> Iterator[Hashable]:
    identity = _identity(raw, index)
    # Of a dataset that draws its views, the same item never has the same pixels.
    yield (id(raw), index) if identity is None else identity
    if by_pixels:
        if isinstance(raw, VisionDataset):
            raw = copy.copy(raw)
            raw.transform = raw.target_transform = raw.transforms = None
        yield hashlib.blake2b(values_of(raw[index][0]), digest_size=16).digest()
