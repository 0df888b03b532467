"""Several processes give what one process gives: DistributedDataParallel, FSDP2, and checkpoints of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch's gloo backend"),
]


def assert_holds(processes, *what):
    script = Path(__file__).with_name("processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, str(script), *what], capture_output=True, text=True, timeout=300)
    # Not by the exit status: Gloo's threads sometimes abort a process that is about to end.
    assert done.stdout.count("held") == processes, done.stderr


@pytest.mark.parametrize("what", ["torch", "auto", "refused", "adapters", "early"])
def test_several_processes(what):
    assert_holds(2, what)


def test_sharded_copies_are_projected_as_in_one_process():
    assert_holds(4, "hybrid")


def test_sharded_weights_are_projected_as_in_one_process_and_resumed_on_another_number(tmp_path):
    assert_holds(2, "sharded", str(tmp_path))
    for processes in (1, 3):
        assert_holds(processes, "resumed", str(tmp_path))
