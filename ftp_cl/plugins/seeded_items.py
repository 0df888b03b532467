"""Items that worker processes load: each with a seed of its own, so that their number changes no random view."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ftp_cl.plugins.processes import count


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
        kind = ValueError if isinstance(error, ValueError) else TypeError
        words = str(error).rpartition(f"{kind.__name__}: ")[2]  # behind the worker's traceback
        raise (OSError if count() > 1 else kind)(words) from error


def started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Begin to iterate over a loader with workers: this draws no random number here."""
    with torch.random.fork_rng([]):
        return iter(loader)  # which draws, or not, by whether the processes are there already


def leave_signals(worker: int) -> None:
    """Let a worker leave what ends a run to the process that trains, which needs batches until it has saved.

    So SIGTERM ends it only if that process sends it, as torch and Python do with workers that are still there.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in threads that begin later
        parent = parent_process()  # where a fork server starts workers, another process than os.getppid()
        threading.Thread(target=_end_with, args=(parent and parent.pid,), daemon=True).start()


def _end_with(parent: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # another status would be an error to torch
