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


def assert_holds(processes, folder, *cases):
    """In one start, because importing torch takes longer than any of them."""
    script = Path(__file__).with_name("processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, str(script), str(folder), *cases], capture_output=True, text=True, timeout=300)
    # Not by the exit status: Gloo's threads sometimes abort a process that is about to end.
    for case in cases:
        assert done.stdout.count(f"held {case}\n") == processes, (case, done.stderr)


def test_several_processes_give_what_one_gives_and_resume_on_another_number(tmp_path):
    assert_holds(2, tmp_path, "torch", "auto", "refused", "adapters", "early", "sharded")
    assert_holds(4, tmp_path, "hybrid", "resumed")
    assert_holds(1, tmp_path, "resumed")
