"""Several processes that carry out one run together: `torchrun --nproc-per-node=2 -m ftp_cl run ...`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from avalanche.distributed import DistributedHelper
from omegaconf import DictConfig

from ftp_cl.plugins import processes
from ftp_cl.plugins.processes import with_others
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.torchrun import has_others

METHODS = ("naive", "l2_sp", "ewc", "replay", "lda", "ranpac", "lda_ensemble", "fixmatch", "aper")
"""Those for which several processes were shown to equal one; each also with FTP, and FTP alone."""

# Of the hosts, beside that of the devices: what processes agree on does not wait for a GPU.
_hosts: Any = None


@contextmanager
def joined(config: DictConfig) -> Iterator[None]:
    """Join the other processes that torchrun has started, if there are any.

    Raises:
        ConfigError: the configuration is not for several processes, or there are fewer GPUs than processes.
    """
    global _hosts
    if not has_others():
        yield
        return
    _check(config)
    device = device_of(config.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    _hosts = dist.new_group(backend="gloo")
    try:
        # Avalanche would share the images out in a way of its own, some of them twice, and warn of plugins.
        with mock.patch.object(type(DistributedHelper), "is_distributed", False):
            yield
    finally:
        dist.destroy_process_group()
        _hosts = None


def _check(config: DictConfig) -> None:
    method = config.method.name
    if method.removeprefix("ftp_").removesuffix("_ftp") not in (*METHODS, "ftp"):
        raise ConfigError(
            f"method={method} is not for several processes: these are {', '.join(('ftp', *METHODS))}, also with=ftp."
        )
    if config.strategy is not None or config.plugins:
        raise ConfigError("strategy= and plugins= are not for several processes, of which they would know nothing.")


def device_of(name: str) -> torch.device:
    """The device of this process.

    Raises:
        ConfigError: it cannot be used here, or processes would have to share one GPU.
        OSError: of several processes, this one's cannot be used; the others' may, so that each has to tell.
    """
    several = has_others()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if several and name == "cuda":
        local, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if here > (gpus := torch.cuda.device_count()):
            raise ConfigError(
                f"{here} processes were started here for {gpus} GPU{'s' * (gpus != 1)}: start as many "
                "(--nproc-per-node), or use device=cpu."
            )
        name = f"cuda:{local}"
    elif several and name != "cpu":
        raise ConfigError(f"device={name} is one for all processes: use device=auto, and each has its own.")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        kind = OSError if several else ConfigError
        raise kind(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


@with_others()
def agreed(value: Any) -> Any:
    """The first process's value, on every process."""
    if processes.count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_hosts)
    return values[0]


@with_others()
def any_of(flag: bool) -> bool:
    """Whether it is so on some process."""
    if processes.count() == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX, group=_hosts)
    return bool(flags)


@with_others()
def together() -> None:
    """Wait until all processes are here."""
    if processes.count() > 1:
        dist.barrier(group=_hosts)


@with_others()
def same_random_numbers(device: torch.device) -> None:
    """Let all processes go on with the first one's generator, from which dropout on a CPU draws for each share."""
    if processes.count() > 1 and device.type == "cpu":
        state = torch.get_rng_state()
        dist.broadcast(state, src=0, group=_hosts)
        torch.set_rng_state(state)


@with_others()
def same_weights(model: torch.nn.Module) -> None:
    """Let all processes go on with the first one's weights; what GPUs compute twice may differ in its last bits."""
    if processes.count() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
