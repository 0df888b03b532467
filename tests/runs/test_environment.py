"""What a result says of the machine."""

import sys

import pytest
import torch

from ftp_cl.runs.environment import forget_peak_memory, peak_memory_mb

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets the peak of a process")
def test_the_peak_is_that_since_it_was_forgotten():
    forget_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    block = torch.ones(100 * 2**20 // 4)  # 100 MiB, written
    assert peak_memory_mb(CPU) >= before + 90
    del block
    forget_peak_memory(CPU)
    assert peak_memory_mb(CPU) < before + 50
