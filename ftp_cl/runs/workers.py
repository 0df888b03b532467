"""Training batches from worker processes, the same ones whatever their number is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from ftp_cl.plugins.processes import share
from ftp_cl.plugins.seeded_items import SeededItems, leave_signals, started, without_traceback


class WorkerLoader:
    """The batches of a loader, whose items are loaded by other processes, which stay from epoch to epoch.

    An epoch draws one number from torch's global generator. The order of items follows from it, and a seed for each
    item, with which all generators begin before its random transforms draw. So neither the number of processes nor
    what was loaded before an interruption changes a batch.

    Of several processes that train together, each loads its share of a batch; at least one image.

    Args:
        loader: torch's `DataLoader`, or one of Avalanche's that makes one.
        workers: how many processes.
        pin_memory: into memory from which a GPU copies while the host goes on.

    Attributes:
        size: of the whole batch that was given last.

    Raises in an iteration:
        ValueError: an item is wrong; of several processes, of which the others may have none, OSError.
    """

    def __init__(self, loader: Any, workers: int, pin_memory: bool) -> None:
        inner = loader if isinstance(loader, DataLoader) else loader._get_loader()
        self._batches = _SeededBatches(inner.batch_sampler)
        self._length, self.size = len(loader), 0
        self._loader: Any = DataLoader(
            SeededItems(inner.dataset),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=inner.collate_fn,
            pin_memory=pin_memory,
            persistent_workers=True,
            worker_init_fn=leave_signals,
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        self._batches.seed = int(torch.randint(2**31, ()))
        iterator = started(self._loader)
        with without_traceback():
            for size, batch in zip(self._batches.sizes, iterator, strict=True):
                self.size = size
                yield batch


class _SeededBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed of the item)."""

    def __init__(self, batches: Any) -> None:
        self._inner = batches
        self.seed = 0
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            batches = [list(batch) for batch in self._inner]
        self.sizes = [len(batch) for batch in batches]
        for batch in batches:
            seeds = torch.randint(2**31, (len(batch),), generator=generator).tolist()
            items = list(zip(batch, seeds, strict=True))
            yield items[share(len(items))] or items[:1]
