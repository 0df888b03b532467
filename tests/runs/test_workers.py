"""Batches from worker processes: what is wrong with an item is said in its words."""

import pytest
from torch.utils.data import DataLoader

from ftp_cl.runs.workers import WorkerLoader


class Broken:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise ValueError("The image 3.png cannot be read.")


@pytest.mark.parametrize(("processes", "kind"), [(1, ValueError), (2, OSError)])
def test_a_wrong_item_is_told_without_the_workers_traceback_and_by_each_process_that_has_one(
    monkeypatch, processes, kind
):
    """The command line prints a ValueError of the first process alone."""
    monkeypatch.setattr("ftp_cl.plugins.seeded_items.count", lambda: processes)
    with pytest.raises(kind, match=r"^The image 3\.png cannot be read\.\s*$"):
        list(WorkerLoader(DataLoader(Broken(), batch_size=2), 1, pin_memory=False))
