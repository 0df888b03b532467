"""Batches of unlabelled images without end, each image in several views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftp_cl.plugins.processes import count, share

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class UnlabelledBatch:
    """Some unlabelled images.

    Attributes:
        indices: which items of the dataset they are [B].
        views: one tensor [B, ...] per view.
        task_labels: [B].
    """

    indices: Tensor
    views: tuple[Tensor, ...]
    task_labels: Tensor

    def to(self, device: torch.device | str) -> "UnlabelledBatch":
        """Return the batch on a device."""
        views = tuple(view.to(device) for view in self.views)
        return UnlabelledBatch(self.indices.to(device), views, self.task_labels.to(device))

    def share(self) -> "UnlabelledBatch":
        """Return what this process looks at; a ValueError if there are fewer images than processes."""
        if count() == 1:
            return self
        if len(self.indices) < count():
            raise ValueError(f"{len(self.indices)} unlabelled images are too few for {count()} processes.")
        own = share(len(self.indices))
        return UnlabelledBatch(self.indices[own], tuple(view[own] for view in self.views), self.task_labels[own])


class UnlabelledBatches:
    """Goes through a dataset again and again, in another order each time, drawn from torch's global generator.

    Its place is two plain values, so that training which is cut off goes on with the very next batch; that of a
    ``DataLoader`` cannot be saved.

    Args:
        dataset: its items begin with the image and may end with a task label; what stands for a label is not read.
        views: what to make of each image.
        batch_size: at least 1; a dataset that is smaller is one batch.

    Attributes:
        order: the items in the order of this pass [N].
        position: how many of them were given out; those that fill no batch are left to the next pass.
    """

    def __init__(self, dataset: Any, views: Sequence[View], batch_size: int) -> None:
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0
        self._dataset = dataset
        self._views = views
        self._batch_size = min(batch_size, len(dataset))

    def __next__(self) -> UnlabelledBatch:
        if self.position + self._batch_size > len(self.order):
            self.order, self.position = torch.randperm(len(self._dataset)), 0
        indices = self.order[self.position : self.position + self._batch_size]
        self.position += self._batch_size
        items = [self._item(int(index)) for index in indices]
        views = tuple(torch.stack(view) for view in zip(*(views for views, _ in items), strict=True))
        return UnlabelledBatch(indices, views, torch.tensor([label for _, label in items]))

    def _item(self, index: int) -> tuple[list[Tensor], int]:
        """Return the views of an item and its task label."""
        image, *others = self._dataset[index]
        if not isinstance(image, Tensor):
            raise TypeError(
                f"Views are made of tensors, and the unlabelled stream gives {type(image).__name__}: end the "
                "benchmark's eval_transform with ToTensor."
            )
        return [view(image) for view in self._views], int(others[-1]) if len(others) > 1 else 0
