"""Training batches from worker processes, the same ones whatever their number is."""

import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ftp_cl.plugins.processes import count, share
from ftp_cl.runs.termination import SIGNALS


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
            _SeededItems(inner.dataset),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=inner.collate_fn,
            pin_memory=pin_memory,
            persistent_workers=True,
            worker_init_fn=_leave_termination,
        )

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        self._batches.seed = int(torch.randint(2**31, ()))
        with torch.random.fork_rng([]):
            iterator = iter(self._loader)  # which draws, or not, by whether the processes are there already
        try:
            for size, batch in zip(self._batches.sizes, iterator, strict=True):
                self.size = size
                yield batch
        except ValueError as error:
            words = str(error).rpartition("ValueError: ")[2]  # behind the worker's traceback
            raise (OSError if count() > 1 else ValueError)(words) from error


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


class _SeededItems(Dataset[Any]):
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        index, seed = key
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed, for GPUs too, takes 0.2 ms
        return self._dataset[index]


def _leave_termination(worker: int) -> None:
    """A cluster tells every process that the job must end; until its checkpoint is written, the run needs batches."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
