"""Copies of the items of an Avalanche dataset, from which nothing leads back to where they came from."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)
from avalanche.benchmarks.utils.flat_data import FlatData
from PIL import Image
from torch.utils.data import Dataset

from ftp_cl.benchmarks._sources import HIDDEN, Layer, for_inputs_only, sources, with_layers
from ftp_cl.benchmarks.image_files import ImageFiles, StoredImage

_LABELS = ("targets", "targets_task_labels")


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
    dataset: AvalancheDataset, indices: Sequence[int], *, hide: bool
) -> TaskAwareSupervisedClassificationDataset:
    """Return a dataset of copies of some items, under the same transforms, with the same attributes.

    Args:
        dataset: where the items come from.
        indices: which items, in the order wanted.
        hide: give all items the label ``HIDDEN``, apply no transform to it, and keep no attribute but task labels.
    """
    # One part for all items that go through the same transforms; they may come in turns.
    parts: dict[tuple[int, ...], tuple[list[Layer], list[Any], list[int]]] = {}
    position = 0
    for source in sources(dataset, indices):
        key = tuple(id(groups) for layer in source.layers for groups in layer)
        _, items, positions = parts.setdefault(key, (source.layers, [], []))
        items += [_copied_item(source.raw, int(index)) for index in source.indices]
        positions += range(position, position + len(source.indices))
        position += len(source.indices)
    copies = []
    for layers, items, _ in parts.values():
        # The label as the source gives it, for the transforms to turn it into what the dataset gives.
        raw = CopiedItems([value for value, _ in items], [HIDDEN if hide else target for _, target in items])
        copies.append(with_layers(AvalancheDataset([raw]), for_inputs_only(layers) if hide else layers))
    order = np.argsort([p for _, _, positions in parts.values() for p in positions])
    attributes = [] if hide else [a for a in dataset._data_attributes.values() if a.name not in _LABELS]
    copied = [DataAttribute([a[i] for i in indices], a.name, use_in_getitem=a.use_in_getitem) for a in attributes]
    task_labels = getattr(dataset, "targets_task_labels", None)
    return TaskAwareSupervisedClassificationDataset(
        [AvalancheDataset(copies, indices=order.tolist() if len(copies) > 1 else None)],
        data_attributes=[
            DataAttribute([HIDDEN if hide else int(dataset.targets[i]) for i in indices], "targets"),
            TaskLabels([0 if task_labels is None else int(task_labels[i]) for i in indices]),
            *copied,
        ],
        collate_fn=dataset.collate_fn,
    ).with_transforms(dataset._flat_data._transform_groups.current_group)


def sources_of(dataset: Any) -> set[int]:
    """Return the ``id`` of every dataset that this one is made from, itself included."""
    found: dict[int, Any] = {}
    pending = [dataset]
    while pending:
        node = pending.pop()
        if id(node) not in found:
            found[id(node)] = node
            for value in getattr(node, "__dict__", {}).values():
                parts = value if isinstance(value, (list, tuple)) else [value]
                if parts and isinstance(parts[0], (Dataset, FlatData, AvalancheDataset)):
                    pending += parts
    return set(found)


def _copied_item(source: Any, index: int) -> tuple[Any, Any]:
    """Return a copy of an input, and its label; of an image file, the file where its pixels would take more memory."""
    if isinstance(source, ImageFiles) and (stored := source.stored_image(index)).is_compact:
        return stored, source.targets[index]
    value, target = source[index][:2]
    return _detached(value), _detached(target)


def _detached(value: Any) -> Any:
    if isinstance(value, Image.Image):
        # From the pixels alone: an image that was read from a file knows its path, which may name the class.
        picture = Image.frombytes(value.mode, value.size, value.tobytes())
        if value.palette is not None:
            picture.putpalette(value.getpalette() or [])
        return picture
    return copy.deepcopy(value)


def values_of(value: Any) -> bytes:
    """Return all that a value says: of an array or tensor its type, shape and numbers, of an image its pixels."""
    if isinstance(value, StoredImage):
        return value.content
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | Image.Image):
        array = np.asarray(value)
        return f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    return pickle.dumps(value)
