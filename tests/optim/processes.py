"""What test_distributed.py runs in several processes that it forks."""

import os
import signal
import traceback

import peft  # noqa: F401  # here, so that no process has to
import torch
import torch._dynamo
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp
from torch import nn

from ftp_cl.optim import FTP
from ftp_cl.projection import get_backends

get_backends("auto")  # so that no process has to import Numba


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


def redundancy():
    """ZeroRedundancyOptimizer keeps each parameter's moments in one process: FTP is attached to it as to any other.

    Each process has half of the batch, whose gradients DDP averages.
    """
    from torch.distributed.optim import ZeroRedundancyOptimizer

    for method in ("paper", "one_pass"):
        model, alone = uneven_model(torch.float32), uneven_model(torch.float32)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.01)
        ftp = FTP(model, k=0.5, method=method, mu=0.05).attach(optimizer)
        single, reference = with_ftp(alone, method)
        spread = nn.parallel.DistributedDataParallel(model)
        train_on(spread, optimizer, range(6), dist.get_rank()), train_on(alone, single, range(6))
        optimizer.consolidate_state_dict(to=0)
        saved = [optimizer.state_dict() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(saved)
        again = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.01)
        ftp = FTP(model, k=0.5, method=method, mu=0.05).attach(again)
        again.load_state_dict(saved[0])
        train_on(spread, again, range(6, 9), dist.get_rank()), train_on(alone, single, range(6, 9))
        for own, other in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=1e-6)
        for name, radius in reference.radii().items():
            assert abs(ftp.radii()[name] - radius) < 1e-5 * radius, (name, ftp.radii()[name], radius)
        assert max(ftp.radii().values()) > 0.02
    early = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, overlap_with_ddp=True, lr=0.01)
    try:
        FTP(model).attach(early)
    except TypeError as error:
        assert "overlap_with_ddp=False" in str(error), error
    else:
        raise AssertionError("not refused")


def uneven_model(dtype):
    """Rows that two processes do not share evenly, and a bias of which one of them has nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)).to(dtype)


def train_on(model, optimizer, steps, half=None):
    """`half`: 0 or 1, of each batch; None: all of it."""
    for step in steps:
        generator = torch.Generator().manual_seed(step // 3)
        images = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(next(model.parameters()).dtype)
        images = images if half is None else images.chunk(2)[half]
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def with_ftp(model, method):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return optimizer, FTP(model, k=0.5, method=method, mu=0.05).attach(optimizer)


def shard(model, replicas=None):
    """Over all processes, or so often, each time over some (HSDP)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    sizes, names = (dist.get_world_size(),), ("shard",)
    if replicas is not None:
        sizes, names = (replicas, dist.get_world_size() // replicas), ("replicate", "shard")
    return fully_shard(model, mesh=init_device_mesh("cpu", sizes, mesh_dim_names=names))


def assert_equal(sharded, alone, ftp, reference, tolerance):
    for (name, one), other in zip(sharded.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(
            one.full_tensor(), other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )
    for name, row in reference.summary().items():
        for what, value in ftp.summary()[name].items():
            assert abs(value - row[what]) <= 10 * tolerance * max(1, abs(value)), (name, what, value, row[what])


def sharded(folder):
    """FSDP2 gives what one process gives, and keeps FTP's state in a distributed checkpoint."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        for method in ("paper", "exact", "one_pass"):
            model, alone = shard(uneven_model(dtype)), uneven_model(dtype)
            (optimizer, ftp), (single, reference) = with_ftp(model, method), with_ftp(alone, method)
            train_on(model, optimizer, range(6)), train_on(alone, single, range(6))
            assert_equal(model, alone, ftp, reference, tolerance)
            assert max(ftp.radii().values()) > 0.02
            own = optimizer.state_dict()
            again, ftp = with_ftp(model, method)
            again.load_state_dict(own)
            train_on(model, again, range(6, 9)), train_on(alone, single, range(6, 9))
            assert_equal(model, alone, ftp, reference, tolerance)
            if dtype == torch.float64:
                saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, again)}
                dcp.save(saved, checkpoint_id=f"{folder}/{method}")
    with torch.device("meta"):  # torch's default device does not matter
        again.step()
    bad = shard(uneven_model(torch.float32))
    optimizer, ftp = with_ftp(bad, "paper")
    train_on(bad, optimizer, range(2))
    weight = bad[0].weight.to_local()
    if dist.get_rank() == 0:
        weight.data[0, 0] = torch.nan
    train_on(bad, optimizer, [2])
    assert set(ftp.skipped()) >= {"0.weight"} and ftp.radii()["0.weight"] == ftp.radii()["0.weight"]


def early():
    """FTP was attached before the weights were sharded and the optimizer got them: so do accelerate and the Trainer."""
    model, alone = uneven_model(torch.float64), uneven_model(torch.float64)
    (optimizer, ftp), (single, reference) = with_ftp(model, "paper"), with_ftp(alone, "paper")
    shard(model)
    optimizer.param_groups[0]["params"] = list(model.parameters())
    train_on(model, optimizer, range(6)), train_on(alone, single, range(6))
    assert_equal(model, alone, ftp, reference, 1e-12)


def assert_goes_on_as_alone(make, tolerance, replicas=None):
    """Sharded, and again from the state that torch.distributed.checkpoint takes."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    for method in ("paper", "exact", "one_pass"):
        model, alone = make(), make()
        shard(model, replicas)
        (optimizer, ftp), (single, reference) = with_ftp(model, method), with_ftp(alone, method)
        train_on(model, optimizer, range(6)), train_on(alone, single, range(6))
        assert_equal(model, alone, ftp, reference, tolerance)
        assert max(ftp.radii().values()) > 0.02
        saved, (again, ftp) = get_optimizer_state_dict(model, optimizer), with_ftp(model, method)
        set_optimizer_state_dict(model, again, saved)
        train_on(model, again, range(6, 9)), train_on(alone, single, range(6, 9))
        assert_equal(model, alone, ftp, reference, tolerance)


def hybrid():
    """Two copies, each sharded over two processes: sums over all four would count votes twice."""
    assert_goes_on_as_alone(lambda: uneven_model(torch.float64), 1e-12, replicas=2)


def adapters():
    """LoRA under FSDP2: rows of B are where they are, and A is gathered."""
    from peft import LoraConfig, get_peft_model

    def make():
        model = get_peft_model(uneven_model(torch.float64), LoraConfig(r=3, target_modules=["0", "2", "4"]))
        return model.double()

    assert_goes_on_as_alone(make, 1e-10)
    bias = shard(get_peft_model(uneven_model(torch.float32), LoraConfig(r=2, target_modules=["0"], lora_bias=True)))
    try:
        FTP(bias)
    except ValueError as error:
        assert "Adapter 'default' of 0 is sharded over processes" in str(error), error
    else:
        raise AssertionError("not refused")
    data_parallel_model = nn.parallel.DistributedDataParallel(make())
    optimizer, ftp = with_ftp(data_parallel_model, "paper")
    train_on(data_parallel_model, optimizer, range(4))
    assert set(ftp.radii()) == {f"{layer}.lora_B.default.weight" for layer in (0, 2, 4)}


def resumed(folder):
    """On another number of processes."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    for method in ("paper", "exact", "one_pass"):
        model, alone = shard(uneven_model(torch.float64)), uneven_model(torch.float64)
        (optimizer, ftp), (single, reference) = with_ftp(model, method), with_ftp(alone, method)
        saved = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
        assert not ftp.radii(), "the step that makes the optimizer's state is none"
        dcp.load(saved, checkpoint_id=f"{folder}/{method}")
        model.load_state_dict(saved["model"])
        set_optimizer_state_dict(model, optimizer, saved["optimizer"])
        train_on(model, optimizer, range(9, 12)), train_on(alone, single, range(12))
        assert_equal(model, alone, ftp, reference, 1e-10)


def replicated():
    """Distributed tensors of which each process has all, as some of tensor parallelism are."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    mesh, start = init_device_mesh("cpu", (dist.get_world_size(),)), torch.linspace(-1, 1, 12).view(3, 4)
    own, alone = nn.Parameter(distribute_tensor(start, mesh, [Replicate()])), nn.Parameter(start.clone())
    one, other = (torch.optim.AdamW([weight], lr=0.01, foreach=False) for weight in (own, alone))
    ftp, reference = FTP([("weight", own)]).attach(one), FTP([("weight", alone)]).attach(other)
    for step in range(4):
        alone.grad = torch.cos(start + step)
        own.grad = distribute_tensor(alone.grad, mesh, [Replicate()])
        one.step(), other.step()
    torch.testing.assert_close(own.to_local(), alone)
    assert ftp.summary() == reference.summary()


def refused():
    """What has no whole rows anywhere, by name."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import Shard, distribute_tensor

    flat = FullyShardedDataParallel(make_model(), use_orig_params=True, device_id=torch.device("cpu"))
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    columns = nn.Parameter(distribute_tensor(torch.randn(4, 6), mesh, [Shard(1)]))
    for parameters, sentence in (
        (flat, "flattened, whose rows"),
        ([("0.weight", columns)], "sharded along dimension 0"),
    ):
        try:
            FTP(parameters)
        except ValueError as error:
            assert "0.weight is " in str(error) and sentence in str(error), error
        else:
            raise AssertionError("not refused")


CASES = {
    "torch": lambda folder: data_parallel("torch"),
    "auto": lambda folder: data_parallel("auto"),
    "sharded": sharded,
    "adapters": lambda folder: adapters(),
    "early": lambda folder: early(),
    "hybrid": lambda folder: hybrid(),
    "resumed": resumed,
    "redundancy": lambda folder: redundancy(),
    "replicated": lambda folder: replicated(),
    "refused": lambda folder: refused(),
}


def hold(rank, size, port, cases, folder):
    """In a forked process, which ends here: with status 0 if all of these hold."""
    status = 1
    signal.alarm(300)
    torch.set_num_threads(1)  # makes the threads anew of which a fork has none
    try:
        values = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in values.items()})
        dist.init_process_group("gloo")
        for case in cases:
            CASES[case](folder)
        dist.barrier()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
