"""BatchNorm of processes that train together has the statistics and gradients of the whole batch."""

import copy
import multiprocessing
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn
from torch.multiprocessing import start_processes

from ftp_cl.runs.batch_norm import synchronize

# Of three processes the first has the odd image, and two have none of the last batch but one that does not count.
SIZES = (7, 8, 1)


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, momentum=None)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double()


def trained(rank=0, count=1, compiled=False):
    """The weights and statistics after a step for each batch, whose shares the processes have."""
    own = [1.0]
    model = network()
    if count > 1:
        synchronize(model, lambda: own[0])
        model = copy.deepcopy(model)
    run = torch.compile(model, backend="aot_eager") if compiled else model
    torch.manual_seed(1)
    for size in SIZES:
        images, labels = torch.randn(size, 3, 7, 7).double() + 5, torch.randint(2, (size,))
        shares = [part.tolist() for part in torch.arange(size).tensor_split(count)]
        own[0] = float(len(shares[rank]) > 0)
        mine = shares[rank] or [0]
        loss = nn.functional.cross_entropy(run(images[mine]), labels[mine]) * own[0] * len(mine) / size
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                if count > 1:
                    dist.all_reduce(weight.grad)
                weight -= 0.1 * weight.grad
    return model.state_dict()


class OwnBatchNorm(nn.BatchNorm2d):
    """Normalises in a way of its own."""

    def forward(self, images):
        return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


def refused(rank, count):
    """What is said of one image with one value per channel (the others have stand-ins), and of a layer of its own."""
    said = []
    for model, images in ((nn.BatchNorm2d(4), torch.ones(1, 4, 1, 1)), (OwnBatchNorm(4), torch.randn(2, 4, 3, 3))):
        synchronize(model, lambda: float(rank == 0))
        with pytest.raises(ValueError) as raised:
            model(images)
        said.append(str(raised.value))
    return said


def work(rank, function, port, directory, *options):
    torch.set_num_threads(1)
    address = f"tcp://localhost:{port}"
    dist.init_process_group("gloo", address, rank=rank, world_size=3, timeout=timedelta(minutes=1))
    torch.save(function(rank, 3, *options), directory / f"{rank}.pt")


def in_three_processes(directory, function, *options):
    """What each process returns; none outlives an error in another, nor one that it waits for in vain."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start_processes(work, (function, port, directory, *options), 3, daemon=True, start_method="fork")
    return [torch.load(directory / f"{rank}.pt") for rank in range(3)]


pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked"
)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_statistics_and_gradients_are_those_of_the_whole_batch(tmp_path, compiled):
    every = in_three_processes(tmp_path, trained, compiled)
    for name, expected in trained().items():
        for own in every:
            torch.testing.assert_close(own[name], expected, rtol=1e-10, atol=1e-12)


def test_one_value_of_all_processes_and_layers_that_normalise_in_their_own_way_are_refused_by_all(tmp_path):
    for few, own in in_three_processes(tmp_path, refused):
        assert few.startswith("Expected more than 1 value per channel when training, got [1, 4, 1, 1] of all")
        assert own.startswith("OwnBatchNorm does not normalise by torch.nn.functional.batch_norm")


def test_between_iterations_a_pass_is_each_process_own():
    model, expected = network(), network()
    synchronize(model, lambda: None)
    images = torch.randn(2, 3, 7, 7).double()
    assert torch.equal(model(images), expected(images))
