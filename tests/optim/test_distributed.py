"""Several processes give what one process gives: DistributedDataParallel, FSDP2, and checkpoints of it."""

import os
import runpy
import socket
from pathlib import Path

import pytest
import torch.distributed as dist

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch's gloo backend"),
]


def assert_holds(size, folder, *cases):
    """Forked, because importing torch takes each process longer than all of these."""
    hold = runpy.run_path(str(Path(__file__).with_name("processes.py")))["hold"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [os.fork() or hold(rank, size, port, cases, str(folder)) for rank in range(size)]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * size


def test_several_processes_give_what_one_gives_and_resume_on_another_number(tmp_path):
    assert_holds(2, tmp_path, "torch", "auto", "redundancy", "replicated", "refused", "adapters", "early", "sharded")
    assert_holds(4, tmp_path, "hybrid", "resumed")
    assert_holds(1, tmp_path, "resumed")
