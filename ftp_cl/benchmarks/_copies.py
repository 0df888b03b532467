"""Copies of the items of an Avalanche dataset, from which nothing leads back to where they came from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from avalanche.benchmarks.utils import (
    AvalancheDataset,
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
)
from avalanche.benchmarks.utils.flat_data import FlatData
from PIL import Image
from torch.utils.data import Dataset

from ftp_cl.benchmarks.image_files import ImageFiles, StoredImage

HIDDEN = -1
"""The label of an item whose label is hidden."""


class CopiedItems(Dataset[tuple[Any, int]]):
    """Inputs and labels, and nothing else: no file names, no source, no label that is not listed.

    Args:
        inputs: PIL images, image files as they are stored, tensors, or anything that can be deep-copied; they must be
            nobody else's.
        targets: the class index of each input, or ``HIDDEN``.
    """

    def __init__(self, inputs: Sequence[Any], targets: Sequence[int]) -> None:
        self.targets = list(targets)
        self._inputs = list(inputs)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        value = self._inputs[index]
        # A copy, so that a transform that works in place cannot change the data.
        return value.decode() if isinstance(value, StoredImage) else copy.deepcopy(value), self.targets[index]


def copy_items(
    dataset: AvalancheDataset, indices: Sequence[int], groups: TransformGroups, task_label: int, *, hide: bool
) -> TaskAwareSupervisedClassificationDataset:
    """Return a dataset of copies of some items, under the same transforms.

    Args:
        dataset: where the items come from.
        indices: which items, in the order wanted.
        groups: the transforms that ``dataset`` applies.
        task_label: of all items.
        hide: give all items the label ``HIDDEN``, and apply no transform to it.
    """
    copies = [_copied_item(*_source_of(dataset, index)) for index in indices]
    # The label as the source gives it, for the transforms to turn it into what ``dataset`` gives.
    items = CopiedItems([value for value, _ in copies], [HIDDEN if hide else target for _, target in copies])
    targets = items.targets if hide else [int(dataset.targets[index]) for index in indices]
    return TaskAwareSupervisedClassificationDataset(
        [items],
        data_attributes=[
            DataAttribute(targets, "targets"),
            TaskLabels(ConstantSequence(task_label, len(items))),
        ],
        transform_groups=_for_inputs_only(groups) if hide else TransformGroups(dict(groups.transform_groups)),
    )


def sources_of(dataset: Any) -> set[int]:
    """Return the ``id`` of every dataset that this one is made from, itself included."""
    found: dict[int, Any] = {}
    pending = [dataset]
    while pending:
        node = pending.pop()
        if id(node) not in found:
            found[id(node)] = node
            pending += _datasets_in(getattr(node, "__dict__", {}).values())
    return set(found)


def _datasets_in(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (Dataset, FlatData, AvalancheDataset)):
            yield value
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], (Dataset, FlatData, AvalancheDataset)):
            yield from value


def _source_of(dataset: AvalancheDataset, index: int) -> tuple[Any, int]:
    """Return where an item comes from, before any transform of Avalanche's: a dataset and an index into it."""
    # Avalanche has no public way to read an item without its transforms; the pinned version keeps data in this tree.
    node: Any = dataset._flat_data
    while isinstance(node, FlatData):
        position, index = node._get_idx(index)
        node = node._datasets[position]
    return node, index


def _copied_item(source: Any, index: int) -> tuple[Any, int]:
    """Return a copy of an input, and its label; of an image file, the file where its pixels would take more memory."""
    if isinstance(source, ImageFiles) and (stored := source.stored_image(index)).is_compact:
        return stored, source.targets[index]
    value, target = source[index][:2]
    return _detached(value), int(target)


def _detached(value: Any) -> Any:
    if isinstance(value, Image.Image):
        # From the pixels alone: an image that was read from a file knows its path, which may name the class.
        picture = Image.frombytes(value.mode, value.size, value.tobytes())
        if value.palette is not None:
            picture.putpalette(value.getpalette() or [])
        return picture
    return copy.deepcopy(value)


class _InputOnly:
    """Avalanche's transform of an (input, label) pair, applied to an input without a label."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __call__(self, value: Any) -> Any:
        result = self.transform(value, HIDDEN)
        return result[0] if isinstance(result, (list, tuple)) else result


def _for_inputs_only(groups: TransformGroups) -> TransformGroups:
    return TransformGroups(
        {name: (_InputOnly(t) if t is not None else None, None) for name, t in groups.transform_groups.items()}
    )
