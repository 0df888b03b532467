"""What an Avalanche dataset is made of: raw datasets, indices into them, and layers of transforms on top.

Avalanche has no public way to either; the pinned version keeps them in a tree with the raw datasets at its leaves.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from avalanche.benchmarks.utils import AvalancheDataset, TransformGroups
from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.benchmarks.utils.flat_data import FlatData
from avalanche.benchmarks.utils.transform_groups import DefaultTransformGroups, identity
from avalanche.benchmarks.utils.transforms import MultiParamCompose, MultiParamTransformCallable, TupleTransform
from numpy.typing import NDArray

Data = TypeVar("Data", bound=AvalancheDataset)

HIDDEN = -1
"""The label of an item whose label is hidden."""


class Layer(NamedTuple):
    """Transforms of one node of the tree; the frozen ones come first, and stay where others are replaced."""

    frozen: TransformGroups
    current: TransformGroups


class Source(NamedTuple):
    """Items of a dataset that follow each other and come from one raw dataset.

    Attributes:
        raw: the dataset.
        indices: of the items in it.
        layers: what is applied to them, in this order.
    """

    raw: Any
    indices: NDArray[np.int64]
    layers: list[Layer]


def sources(dataset: AvalancheDataset, indices: Sequence[int] | None = None) -> Iterator[Source]:
    """Yield where the items of ``dataset``, or those at ``indices``, come from, in their order."""
    return _sources(dataset._flat_data, np.arange(len(dataset)) if indices is None else np.asarray(indices, int), [])


def _sources(node: Any, indices: NDArray[np.int64], above: list[Layer]) -> Iterator[Source]:
    if not isinstance(node, FlatData):
        yield Source(node, indices, above)
        return
    layers = above
    if isinstance(node, _FlatDataWithTransform):
        layers = _filled([Layer(node._frozen_transform_groups, node._transform_groups)]) + above
    if node._indices is not None:
        indices = np.fromiter(node._indices, np.int64, len(node._indices))[indices]
    owners = np.searchsorted(node._cumulative_sizes, indices, side="right")
    starts = [0, *node._cumulative_sizes]
    for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(owners)) + 1):
        if len(run):
            owner = owners[run[0]]
            yield from _sources(node._datasets[owner], indices[run] - starts[owner], layers)


def with_raw(node: Any, replace: Callable[[Any], Any]) -> Any:
    """Return a copy of the tree whose raw datasets are replaced."""
    if not isinstance(node, FlatData):
        return replace(node)
    twin = copy.copy(node)
    twin._datasets = [with_raw(part, replace) for part in node._datasets]
    return twin


def with_layers(dataset: Data, layers: Sequence[Layer]) -> Data:
    """Return ``dataset`` with more transforms on top of its own."""
    for frozen, current in layers:
        # Copies, because Avalanche notes in them which group is in use.
        dataset = type(dataset)(
            [dataset], frozen_transform_groups=copy.copy(frozen), transform_groups=copy.copy(current)
        )
    return dataset


def for_inputs_only(layers: Sequence[Layer]) -> list[Layer]:
    """Return what ``layers`` do to inputs, without what they do to labels."""
    return _filled([Layer(*map(_inputs_only, layer)) for layer in layers])


def _filled(layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if any(t is not None for groups in layer for t in _transforms(groups).values())]


def _transforms(groups: TransformGroups) -> dict[str | None, Any]:
    """Return the transform of each group; under None that of all groups without one of their own."""
    default = groups.transform_groups.default_factory() if isinstance(groups, DefaultTransformGroups) else None
    return {None: default, **groups.transform_groups}


def _inputs_only(groups: TransformGroups) -> TransformGroups:
    twin = copy.copy(groups)
    twin.transform_groups = {name: _input_only(transform) for name, transform in _transforms(groups).items()}
    default = twin.transform_groups.pop(None)
    if isinstance(groups, DefaultTransformGroups):
        twin.transform_groups = type(groups.transform_groups)(partial(identity, default), twin.transform_groups)
    return twin


def _input_only(transform: Any) -> Any:
    if isinstance(transform, TupleTransform):
        return TupleTransform(transform.transforms[:1]) if transform.transforms[:1] not in ([], [None]) else None
    if isinstance(transform, MultiParamCompose):
        parts = [part for part in map(_input_only, transform.transforms) if part is not None]
        return MultiParamCompose(parts) if parts else None
    if transform is None or MultiParamTransformCallable._detect_parameters(transform)[1] == 1:
        return transform
    return _InputOnly(transform)


@dataclass
class _InputOnly:
    """A transform of an (input, label) pair, applied to an input alone."""

    transform: Any

    def __call__(self, value: Any) -> Any:
        result = self.transform(value, HIDDEN)
        return result[0] if isinstance(result, list | tuple) else result
