"""Batches of unlabelled images without end, each image in several views."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        """Return the batch on a device; a GPU copies pinned memory while the host goes on."""
        views = tuple(view.to(device, non_blocking=view.is_pinned()) for view in self.views)
        return UnlabelledBatch(self.indices.to(device), views, self.task_labels.to(device))


class UnlabelledBatches:
    """Goes through a dataset again and again, in another order each time, drawn from torch's global generator.

    Its place is plain, so that training which is cut off goes on with the very next batch; that of a ``DataLoader``
    cannot be saved. Of several processes each is given its share of a batch.

    Args:
        dataset: its items begin with the image and may end with a task label; what stands for a label is not read.
        views: what to make of each image.
        batch_size: at least 1; a dataset that is smaller is one batch.
        workers: processes that load images and make views, a batch each. All random numbers then follow from one that
            is drawn at the start, whatever the number of processes is. 0: this process.
        pin_memory: into memory from which a GPU copies while the host goes on; with workers only.

    Attributes:
        indices: the items of the whole batch that was given last.

    Raises in an iteration:
        ValueError: a batch has fewer images than there are processes.
        TypeError: the dataset gives something else than tensors.
    """

    def __init__(
        self, dataset: Any, views: Sequence[View], batch_size: int, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.indices = torch.empty(0, dtype=torch.long, device="cpu")
        self._pass = _Pass(self.indices, 0)
        self._position = 0
        self._items = _Views(dataset, views)
        self._batch_size = min(batch_size, len(dataset))
        self._workers, self._pin_memory = workers, pin_memory
        self._loaded: Iterator[tuple[list[Tensor], Tensor]] | None = None

    @property
    def place(self) -> tuple[Tensor, int, int]:
        """Order of this pass [N], how many of its items were given out, and what follows it; can be set.

        Items that fill no batch are left to the next pass.
        """
        return self._pass.order, self._position, self._pass.seed

    @place.setter
    def place(self, place: tuple[Tensor, int, int]) -> None:
        order, self._position, seed = place
        self._pass, self._loaded = _Pass(order, seed), None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": None}  # processes, which cannot be saved

    def __next__(self) -> UnlabelledBatch:
        if self._batch_size < count():
            raise ValueError(f"{self._batch_size} unlabelled images are too few for {count()} processes.")
        if self._position + self._batch_size > len(self._pass.order):
            self._pass, self._position = self._next_pass(), 0
        indices = self._pass.order[self._position : self._position + self._batch_size]
        own = share(self._batch_size)
        if self._workers:
            views, task_labels = self._from_workers()
        else:  # each process draws the same random views
            views, task_labels = _collated([self._items[int(index)] for index in indices])
            views, task_labels = [view[own] for view in views], task_labels[own]
        self.indices = indices
        self._position += self._batch_size
        return UnlabelledBatch(indices[own], tuple(views), task_labels)

    def _next_pass(self) -> "_Pass":
        if not self._workers:
            return _Pass(torch.randperm(len(self._items), device="cpu"), 0)
        if not len(self._pass.order):
            self._pass = _Pass(self._pass.order, int(torch.randint(2**31, (), device="cpu")))
        return self._pass.next(len(self._items))

    def _from_workers(self) -> tuple[list[Tensor], Tensor]:
        try:
            with without_traceback():
                if self._loaded is None:
                    loader = DataLoader(
                        SeededItems(self._items),
                        batch_sampler=_Rest(self._pass, self._position, self._batch_size, len(self._items)),
                        num_workers=self._workers,
                        collate_fn=_collated,
                        pin_memory=self._pin_memory,
                        worker_init_fn=leave_signals,
                    )
                    self._loaded = started(loader)
                return next(self._loaded)
        except BaseException:
            self._loaded = None  # it may be ahead of the position
            raise


class _Pass(NamedTuple):
    """Once through all items: their order [N], and the seed of the views that workers make and of the next pass."""

    order: Tensor
    seed: int

    def item_seeds(self) -> list[int]:
        """One for each item, by its place in the order."""
        return torch.randint(2**31, (len(self.order),), generator=self._generator(0), device="cpu").tolist()

    def next(self, size: int) -> "_Pass":
        """The pass that follows, over so many items."""
        generator = self._generator(1)
        order = torch.randperm(size, generator=generator, device="cpu")
        return _Pass(order, int(torch.randint(2**31, (), generator=generator, device="cpu")))

    def _generator(self, of: int) -> torch.Generator:
        return torch.Generator().manual_seed(2 * self.seed + of)


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


class _Rest(Sampler[list[tuple[int, int]]]):
    """What workers make from a position on, without end: this process's share of each batch, as (index, seed)."""

    def __init__(self, start: _Pass, position: int, batch_size: int, size: int) -> None:
        self._start, self._position, self._batch_size, self._size = start, position, batch_size, size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, position, own = self._start, self._position, share(self._batch_size)
        while True:
            keys = list(zip(current.order.tolist(), current.item_seeds(), strict=True))
            for start in range(position, len(keys) - self._batch_size + 1, self._batch_size):
                yield keys[start + own.start : start + own.stop]
            current, position = current.next(self._size), 0


def _collated(items: Sequence[tuple[list[Tensor], int]]) -> tuple[list[Tensor], Tensor]:
    """The images of each view [B, ...], and the task labels [B]."""
    views = [torch.stack(view) for view in zip(*(views for views, _ in items), strict=True)]
    return views, torch.tensor([label for _, label in items], device="cpu")
