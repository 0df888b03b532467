"""Worker processes outlive no run: neither signals that they ignore nor references that remain keep them."""

import subprocess
import sys

SCRIPT = """
from torch.utils.data import DataLoader
from ftp_cl.plugins.seeded_items import SeededItems, leave_signals, started

items = SeededItems("abc")
keys = [[(number, 0)] for number in range(3)]
loader = DataLoader(items, batch_sampler=keys, num_workers=2, persistent_workers=True, worker_init_fn=leave_signals)
loader.circle = loader  # as in a run that an error has ended: nothing takes it down
batches = started(loader)
print(next(batches))
"""


def test_a_process_ends_although_its_workers_are_still_there():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("['a']\n", "", 0)
