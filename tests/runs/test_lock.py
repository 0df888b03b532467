"""One process at a time in a run directory, as long as it lives and no longer."""

import os
import time

import pytest
import yaml
from omegaconf import OmegaConf

from ftp_cl.runs import run as running
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.lock import DirectoryLock
from ftp_cl.runs.status import LOCK_FILE, is_locked


def forked(act):
    """A child process that calls `act`; its exit status is what that returns, or 2 for a ConfigError."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = act() or 0
        except ConfigError:
            status = 2
        finally:
            os._exit(status)
    return child


def test_of_two_runs_in_one_new_directory_one_gets_it_whole(tmp_path, monkeypatch):
    def pretend(config, record, termination):
        record.begin()
        time.sleep(0.01)
        record.write_result({"config": OmegaConf.to_container(config)})

    monkeypatch.setattr(running, "_run", pretend)
    configs = [load_config([f"seed={seed}"]) for seed in (0, 1)]
    for number in range(10):
        directory = tmp_path / str(number)
        start = time.monotonic() + 0.02

        def race(config, directory=directory, start=start):
            while time.monotonic() < start:
                pass
            running.run(config, directory)

        children = [forked(lambda config=config: race(config)) for config in configs]
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(statuses) == [0, 2]
        for name in ("config.yaml", "result.json"):
            content = yaml.safe_load((directory / name).read_text())
            assert content.get("config", content)["seed"] == statuses.index(0)


def test_a_dead_process_holds_nothing_though_its_child_lives(tmp_path):
    told, tell = os.pipe()

    def hold_and_die():
        DirectoryLock(tmp_path).__enter__()
        if os.fork() == 0:  # as a loader's worker, which has not noticed
            os.close(tell)
            os.write(ready[1], b"x")
            os.read(told, 1)
            os._exit(0)
        os.read(ready[0], 1)
        os._exit(9)

    ready = os.pipe()
    os.waitpid(forked(hold_and_die), 0)
    assert (tmp_path / LOCK_FILE).exists() and not is_locked(tmp_path)
    with DirectoryLock(tmp_path):
        assert is_locked(tmp_path)
        assert os.waitpid(forked(lambda: None), 0)[1] == 0
        assert is_locked(tmp_path), "a child that ends leaves the lock to its parent"
    os.close(tell)


@pytest.mark.parametrize(
    "make", [os.symlink, os.link, lambda target, lock: os.mkfifo(lock), lambda _, lock: lock.mkdir()]
)
def test_a_lock_file_that_is_none_is_refused_and_nothing_overwritten(tmp_path, make):
    target = tmp_path / "diary.txt"
    target.write_text("dear diary")
    (tmp_path / "run").mkdir()
    make(target, tmp_path / "run" / LOCK_FILE)
    with pytest.raises(ConfigError, match="is no lock file of a run"), DirectoryLock(tmp_path / "run"):
        pass
    assert target.read_text() == "dear diary"
