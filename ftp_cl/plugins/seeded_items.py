"""Items that worker processes load: each with a seed of its own, so that their number changes no random view."""

import atexit
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ftp_cl.plugins.processes import count

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""By which a cluster tells every process of a job that it must end."""


class SeededItems(Dataset[Any]):
    """The items of a dataset by (index, seed): all generators begin with the seed before random transforms draw.

    Args:
        dataset: whose ``[index]`` is the item.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return the item."""
        index, seed = key
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed, for GPUs too, takes 0.2 ms
        return self._dataset[index]


@contextmanager
def without_traceback() -> Iterator[None]:
    """Tell an error of a worker by its own words.

    Raises:
        ValueError, TypeError: an item is wrong; of several processes, of which the others may have none, OSError.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        words = str(error).rpartition(f"{type(error).__name__}: ")[2]  # behind the worker's traceback
        raise (OSError if count() > 1 else type(error))(words) from error


def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to iterate over a loader with workers: this draws no random number, and they end with this process."""
    before = set(active_children())
    with torch.random.fork_rng([]):
        iterator = iter(loader)  # which draws, or not, by whether the processes are there already
    for worker in set(active_children()) - before:
        atexit.register(_end, worker)  # Python would send the SIGTERM that they ignore, and wait
    return iterator


def _end(worker: BaseProcess) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises an error in whatever runs then
    worker.kill()


def leave_signals(worker: int) -> None:
    """Let a worker ignore what ends a run: the process that trains decides, and until then it needs batches."""
    for number in (*SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
