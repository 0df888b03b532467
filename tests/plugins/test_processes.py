"""Errors of torch.distributed: which of them mean that another process is gone."""

import pytest
import torch
import torch.distributed as dist

from ftp_cl.plugins.processes import with_others

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:34027."
NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3699, "


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(GLOO),
        dist.DistBackendError(NCCL + "remote process exited or there was a network error, ncclRemoteError"),
        dist.DistNetworkError("The client socket has timed out after 60000ms"),
        dist.DistStoreError("wait timeout after 300000ms"),
    ],
    ids=["gloo", "nccl", "network", "store"],
)
def test_another_process_is_gone(error):
    with pytest.raises(ConnectionError, match="another process of this run has ended"), with_others():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        dist.DistBackendError(NCCL + "ncclUnhandledCudaError: Call failed. Cuda failure 'out of memory'"),
        dist.DistBackendError(NCCL + "ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"),
        RuntimeError("No backend type associated with device type meta"),
    ],
    ids=["full memory", "full memory, by NCCL", "one GPU for two", "wrong tensor"],
)
def test_an_error_of_this_process_stays_what_it_is(error):
    with pytest.raises(type(error)) as raised, with_others():
        raise error
    assert raised.value is error
