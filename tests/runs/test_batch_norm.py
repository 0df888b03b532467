"""BatchNorm of processes that train together has the statistics and gradients of the whole batch."""

import copy
import multiprocessing
import socket

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn

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


def process(rank, port, answers, compiled):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=3)
    answers.put((rank, {name: value.numpy() for name, value in trained(rank, 3, compiled).items()}))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_statistics_and_gradients_are_those_of_the_whole_batch(compiled):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=process, args=(rank, port, answers, compiled)) for rank in range(3)]
    for one in processes:
        one.start()
    found = dict(answers.get(timeout=240) for _ in processes)
    for one in processes:
        one.join(60)
    for name, expected in trained().items():
        for own in found.values():
            torch.testing.assert_close(torch.as_tensor(own[name]), expected, rtol=1e-10, atol=1e-12)


def test_between_iterations_a_pass_is_each_process_own():
    model, expected = network(), network()
    synchronize(model, lambda: None)
    images = torch.randn(2, 3, 7, 7).double()
    assert torch.equal(model(images), expected(images))
