"""The processes that train together, as torch.distributed has them; a process alone is all there are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

# What NCCL says of its own process: CUDA failed (a full memory, too), a wrong call, a wrong argument.
_OF_THIS_PROCESS = re.compile("ncclUnhandledCudaError|ncclInvalidUsage|ncclInvalidArgument")


@contextmanager
def with_others() -> Iterator[None]:
    """For what processes do together, also as a decorator: tells which of torch's errors mean that another is gone.

    Raises:
        ConnectionError: another process is gone. This one's own errors pass: a full memory, a wrong tensor.
    """
    try:
        yield
    except RuntimeError as error:
        told = str(error)
        is_typed = isinstance(error, dist.DistError)  # gloo's are not, but name the place in its source
        if not (not _OF_THIS_PROCESS.search(told) if is_typed else "gloo/transport/" in told):
            raise
        words = "another process of this run has ended or cannot be reached; resume=true goes on from the checkpoint"
        raise ConnectionError(words) from error


def count() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one, from 0."""
    return dist.get_rank() if count() > 1 else 0


def share(size: int) -> slice:
    """What this process does of so many items; shares are in order, and differ in length by one at most."""
    each, rest = divmod(size, count())
    start = rank() * each + min(rank(), rest)
    return slice(start, start + each + (rank() < rest))


def joined(part: Tensor, size: int) -> Tensor:
    """The items of all processes [size, ...], of which this one has its `share`, on every process."""
    whole = part.new_zeros((size, *part.shape[1:]))
    own = share(size)
    whole[own] = part[: own.stop - own.start]
    with with_others():
        dist.all_reduce(whole)
    return whole


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        with with_others():
            dist.all_reduce(flat)
        flat /= count()
        for tensor, mean in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(mean.view_as(tensor))
