"""Where the items of an Avalanche dataset come from: raw datasets, and indices into them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.flat_data import FlatData
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def sources(dataset: AvalancheDataset) -> Iterator[tuple[Any, Indices]]:
    """Yield each raw dataset with the indices of the items that come from it, in runs, in the order of ``dataset``."""
    # Avalanche has no public way to the raw data; the pinned version keeps it at the leaves of this tree.
    return _runs(dataset._flat_data, np.arange(len(dataset)))


def _runs(node: Any, indices: Indices) -> Iterator[tuple[Any, Indices]]:
    if not isinstance(node, FlatData):
        yield node, indices
        return
    if node._indices is not None:
        indices = np.fromiter(node._indices, np.int64, len(node._indices))[indices]
    owners = np.searchsorted(node._cumulative_sizes, indices, side="right")
    starts = [0, *node._cumulative_sizes]
    for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(owners)) + 1):
        if len(run):
            owner = owners[run[0]]
            yield from _runs(node._datasets[owner], indices[run] - starts[owner])
