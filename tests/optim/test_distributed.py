"""Several processes: DistributedDataParallel gives what one process gives; sharded weights are refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

PROCESSES = 2


@pytest.mark.slow
@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch's gloo backend")
@pytest.mark.parametrize("what", ["torch", "auto", "sharded"])
def test_several_processes(what):
    script = Path(__file__).with_name("processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    done = subprocess.run([*command, str(script), what], capture_output=True, text=True, timeout=300)
    # Not by the exit status: Gloo's threads sometimes abort a process that is about to end.
    assert done.stdout.count("held") == PROCESSES, done.stderr
