"""Worker processes end with the process that trains, and with nobody else's signal."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children

import pytest
from torch.utils.data import DataLoader

from ftp_cl.plugins.seeded_items import SeededItems, leave_signals, started

SCRIPT = """
import sys
from torch.utils.data import DataLoader
from ftp_cl.plugins.seeded_items import SeededItems, leave_signals, started

items = SeededItems("abc")
keys = [[(number, 0)] for number in range(3)]
options = dict(persistent_workers=True, worker_init_fn=leave_signals, multiprocessing_context=sys.argv[1])
loader = DataLoader(items, batch_sampler=keys, num_workers=2, **options)
loader.circle = loader  # as in a run that an error has ended: nothing takes it down
batches = started(loader)
print(next(batches))
"""


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_ends_although_its_workers_are_still_there(method):
    ended = subprocess.run([sys.executable, "-c", SCRIPT, method], capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("['a']\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_from_another_process_stops_no_worker(number):
    keys, before = [[(item, 0)] for item in range(8)], set(active_children())
    batches = started(
        DataLoader(SeededItems("abcdefgh"), batch_sampler=keys, num_workers=1, worker_init_fn=leave_signals)
    )
    assert next(batches) == ["a"]
    (worker,) = set(active_children()) - before
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {int(number)})"], check=True)
    assert [batch for (batch,) in batches] == list("bcdefgh")


def test_torch_can_end_a_worker_that_is_busy():
    keys, before = [[(0, 0)]], set(active_children())
    batches = started(DataLoader(SeededItems(Slow()), batch_sampler=keys, num_workers=1, worker_init_fn=leave_signals))
    (worker,) = set(active_children()) - before
    time.sleep(1)  # until it is busy
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(60)
    assert worker.exitcode == 0
    del batches


class Slow:
    def __getitem__(self, index):
        time.sleep(600)
