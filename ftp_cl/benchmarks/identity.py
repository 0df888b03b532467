"""data_identity: what data a benchmark has, so that a run that goes on can tell whether they are still the same."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.scenarios import CLScenario
from numpy.typing import NDArray
from torch.utils.data import Subset

from ftp_cl.benchmarks._copies import CopiedItems, values_of
from ftp_cl.benchmarks._dataset import DerivedDataset
from ftp_cl.benchmarks._sources import sources
from ftp_cl.benchmarks.corruptions import CorruptedDataset
from ftp_cl.benchmarks.dense.masks import OneExperiencesMasks
from ftp_cl.benchmarks.image_files import FileSizes, ImageFiles

Indices = NDArray[np.int64]

_LABELS, _FILES, _VALUES = "class indices", "file names and sizes", "values"


def data_identity(benchmark: CLScenario) -> dict[str, dict[str, Any]]:
    """Return what data each stream of a benchmark has; equal data give equal values, wherever they lie.

    No image is decoded. Of image files (this package's, and torchvision's ``samples``) the names from their common
    folder and the sizes in bytes count, not the content; of data in memory (``data``, ``tensors``, copies) all values;
    of other datasets the class indices alone. Transforms do not count.

    Args:
        benchmark: of this package or of Avalanche.

    Returns:
        Per stream, fit for JSON: ``items``, the number of items of each experience; ``covers``, what the digest is
        made from, of "class indices", "file names and sizes" and "values"; ``digest``, of these in their order, in
        hexadecimal digits.
    """
    reader = _Reader()
    return {name: reader.stream(stream) for name, stream in benchmark.streams.items()}


class _Reader:
    """Remembers what it has read: streams of corrupted images share their sources."""

    def __init__(self) -> None:
        self._sizes = FileSizes()
        self._read: dict[tuple[int, bytes], tuple[Any, bytes, str]] = {}

    def stream(self, stream: Any) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        items, covers = [], {_LABELS}
        for experience in stream:
            dataset = experience.dataset
            items.append(len(dataset))
            _add(digest, len(dataset), [int(target) for target in dataset.targets])
            for source in sources(dataset):
                part, what = self._part(source.raw, source.indices)
                digest.update(part)
                covers.add(what)
        return {"items": items, "covers": sorted(covers), "digest": digest.hexdigest()}

    def _part(self, source: Any, indices: Indices) -> tuple[bytes, str]:
        """Return the digest of some items of a raw dataset, and what it is made from."""
        key = id(source), indices.tobytes()
        if key not in self._read:
            digest = hashlib.blake2b(digest_size=16)
            what = self._add_items(source, indices, digest)
            # With the dataset, so that no other gets its id.
            self._read[key] = source, digest.digest(), what
        return self._read[key][1:]

    def _add_items(self, source: Any, indices: Indices, digest: Any) -> str:
        if isinstance(source, CorruptedDataset):
            _add(digest, source.name, source.severity, source.seed, source.constants)
        if isinstance(source, OneExperiencesMasks):
            _add(digest, source.shown)
        if isinstance(source, Subset):
            source, indices = source.dataset, np.asarray(source.indices, np.int64)[indices]
        elif isinstance(source, DerivedDataset):
            source = source.source
        else:
            return self._add_raw_items(source, indices, digest)
        part, what = self._part(source, indices)
        digest.update(part)
        return what

    def _add_raw_items(self, source: Any, indices: Indices, digest: Any) -> str:
        if isinstance(source, CopiedItems):
            _add(digest, *(values_of(source._inputs[index]) for index in indices))
            return _VALUES
        if (files := _files(source)) is not None:
            root, paths = files
            for index in indices:
                _add(digest, paths[index], self._sizes.of(root / paths[index]))
                if hasattr(source, "counts"):  # of the mask, by its pixels of each class: small files are alike
                    _add(digest, values_of(source.counts[index]))
            return _FILES
        array = source.data if hasattr(source, "data") else next(iter(getattr(source, "tensors", ())), None)
        if not isinstance(array, np.ndarray | torch.Tensor) or len(array) != len(source):
            return _LABELS
        if isinstance(array, np.memmap):
            path = Path(str(array.filename))
            _add(digest, path.name, self._sizes.of(path), indices.tolist())
            return _FILES
        for values in (array, getattr(source, "masks", None)):
            if values is not None:
                for block in np.array_split(indices, len(indices) // 1000 + 1):
                    _add(digest, values_of(values[block]))
        return _VALUES


def _files(source: Any) -> tuple[Path, Sequence[str]] | None:
    """Return a folder, and the paths of all items from there; None for a dataset that is not made of files."""
    if isinstance(source, ImageFiles):
        return source.root, source.paths
    samples = getattr(source, "samples", None)
    if isinstance(samples, list) and len(samples) == len(source) and all(isinstance(s, tuple) for s in samples):
        paths = [str(path) for path, *_ in samples]
        root = os.path.commonpath(paths)
        return Path(root), [os.path.relpath(path, root) for path in paths]
    return None


def _add(digest: Any, *values: Any) -> None:
    for value in values:
        content = value if isinstance(value, bytes) else repr(value).encode()
        # With its length, so that where one value ends and the next begins counts.
        digest.update(len(content).to_bytes(8, "little") + content)
