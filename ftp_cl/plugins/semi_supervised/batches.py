"""Batches of unlabelled images without end, each image in several views."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ftp_cl.plugins.processes import count, share
from ftp_cl.plugins.seeded_items import SeededItems, leave_signals, started, without_traceback

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
        views = tuple(view.to(device, non_blocking=True) for view in self.views)
        return UnlabelledBatch(self.indices.to(device), views, self.task_labels.to(device))


class UnlabelledBatches:
    """Goes through a dataset again and again, in another order each time, drawn from torch's global generator.

    Its place is three plain values, so that training which is cut off goes on with the very next batch; that of a
    ``DataLoader`` cannot be saved. Of several processes each is given its share of a batch.

    Args:
        dataset: its items begin with the image and may end with a task label; what stands for a label is not read.
        views: what to make of each image.
        batch_size: at least 1; a dataset that is smaller is one batch.
        workers: processes that load images and make views, each with random numbers of its own; 0: this one.
        pin_memory: into memory from which a GPU copies while the host goes on; with workers only.

    Attributes:
        order: the items in the order of this pass [N].
        position: how many of them were given out; those that fill no batch are left to the next pass.
        seed: of this pass's views, which workers make.
        indices: the items of the whole batch that was given last.

    Raises in an iteration:
        ValueError: a batch has fewer images than there are processes.
        TypeError: the dataset gives something else than tensors.
    """

    def __init__(
        self, dataset: Any, views: Sequence[View], batch_size: int, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.order = torch.empty(0, dtype=torch.long)
        self.position = self.seed = 0
        self.indices = self.order
        self._items = _Views(dataset, views)
        self._batch_size = min(batch_size, len(dataset))
        self._keys = _Keys()
        self._loader: Any = None
        if workers:
            self._loader = DataLoader(
                SeededItems(self._items),
                batch_sampler=self._keys,
                num_workers=workers,
                collate_fn=_collated,
                pin_memory=pin_memory,
                persistent_workers=True,
                worker_init_fn=leave_signals,
            )
        self._loaded: Iterator[tuple[list[Tensor], Tensor]] | None = None

    @property
    def place(self) -> tuple[Tensor, int, int]:
        """What the next batches follow from, with torch's global generator; can be set."""
        return self.order, self.position, self.seed

    @place.setter
    def place(self, place: tuple[Tensor, int, int]) -> None:
        self.order, self.position, self.seed = place
        self._loaded = None

    def __next__(self) -> UnlabelledBatch:
        if self.position + self._batch_size > len(self.order):
            order = torch.randperm(len(self._items))
            self.place = order, 0, 0 if self._loader is None else int(torch.randint(2**31, ()))
        if self._batch_size < count():
            raise ValueError(f"{self._batch_size} unlabelled images are too few for {count()} processes.")
        self.indices = self.order[self.position : self.position + self._batch_size]
        own = share(self._batch_size)
        if self._loader is None:  # each process draws the same random views
            views, task_labels = _collated([self._items[int(index)] for index in self.indices])
            views, task_labels = [view[own] for view in views], task_labels[own]
        else:
            views, task_labels = self._from_workers()
        self.position += self._batch_size
        return UnlabelledBatch(self.indices[own], tuple(views), task_labels)

    def _from_workers(self) -> tuple[list[Tensor], Tensor]:
        with without_traceback():
            if self._loaded is None:
                self._keys.batches = self._rest()
                self._loaded = started(self._loader)
            return next(self._loaded)

    def _rest(self) -> list[list[tuple[int, int]]]:
        """What is left of this pass, of each batch the share of this process."""
        generator = torch.Generator().manual_seed(self.seed)
        seeds = torch.randint(2**31, (len(self.order),), generator=generator, device="cpu")
        keys, own = list(zip(self.order.tolist(), seeds.tolist(), strict=True)), share(self._batch_size)
        starts = range(self.position, len(keys) - self._batch_size + 1, self._batch_size)
        return [keys[start + own.start : start + own.stop] for start in starts]


class _Views(Dataset[Any]):
    def __init__(self, dataset: Any, views: Sequence[View]) -> None:
        self._dataset, self._views = dataset, views

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[list[Tensor], int]:
        """Return the views of an item and its task label."""
        image, *others = self._dataset[index]
        if not isinstance(image, Tensor):
            raise TypeError(
                f"Views are made of tensors, and the unlabelled stream gives {type(image).__name__}: end the "
                "benchmark's eval_transform with ToTensor."
            )
        return [view(image) for view in self._views], int(others[-1]) if len(others) > 1 else 0


class _Keys(Sampler[list[tuple[int, int]]]):
    """What workers make, batch by batch, as (index, seed)."""

    batches: Iterable[list[tuple[int, int]]] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


def _collated(items: Sequence[tuple[list[Tensor], int]]) -> tuple[list[Tensor], Tensor]:
    """The images of each view [B, ...], and the task labels [B]."""
    views = [torch.stack(view) for view in zip(*(views for views, _ in items), strict=True)]
    return views, torch.tensor([label for _, label in items], device="cpu")
