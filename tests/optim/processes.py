"""Run by test_distributed.py, in several processes: torchrun --nproc-per-node 2 processes.py NAME."""

import sys

import torch
import torch.distributed as dist
from torch import nn

from ftp_cl.optim import FTP


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model, own, backend):
    """Twenty steps on this process's part of each batch; returns the FTP."""
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(20, 8, 6, generator=generator), torch.randint(0, 3, (20, 8), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ftp = FTP(model, exclude="4", k=0.5, backend=backend).attach(optimizer)
    for image, label in zip(images, labels, strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(image[own]), label[own]).backward()
        optimizer.step()
    return ftp


def data_parallel(backend):
    """The same weights and radii as in one process, and the very same in all of several."""
    size, rank = 8 // dist.get_world_size(), dist.get_rank()
    model, alone = make_model(), make_model()
    ftp = train(nn.parallel.DistributedDataParallel(model), slice(size * rank, size * (rank + 1)), backend)
    reference = train(alone, slice(None), backend)
    for name, radius in reference.radii().items():
        assert abs(ftp.radii()[name] - radius) < 1e-3 * radius, (name, ftp.radii()[name], radius)
    weights, expected = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in (model, alone))
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    gathered = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, weights)
    assert all(torch.equal(weights, other) for other in gathered)


def sharded():
    """Refused, by name, in both of FSDP's versions."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    flat = FullyShardedDataParallel(make_model(), use_orig_params=True, device_id=torch.device("cpu"))
    rows = make_model()
    fully_shard(rows, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    for model in (flat, rows):
        try:
            FTP(model)
        except ValueError as error:
            assert "0.weight is one of FSDP's parameters or a distributed tensor" in str(error), error
        else:
            raise AssertionError("not refused")


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        {"torch": lambda: data_parallel("torch"), "auto": lambda: data_parallel("auto"), "sharded": sharded}[
            sys.argv[1]
        ]()
        print("held", flush=True)
        dist.barrier()
    finally:
        dist.destroy_process_group()
