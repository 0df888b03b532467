"""`ftp-cl watch`: what runs are doing."""

import io
import os
import shutil
import time

import pytest
from rich.console import Console

from ftp_cl.runs.lock import DirectoryLock
from ftp_cl.runs.status import statuses
from ftp_cl.study.watch import status_table

QUICK = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "method=naive"),
    *("train.epochs=1", "train.batch_size=64", "eval.ood_every=never", "threads=1"),
]


def test_watch_tells_finished_running_failed_and_interrupted_runs_apart(ftp_cl, refused, tmp_path):
    assert ftp_cl("run", *QUICK, "out=runs/finished")[0] == 0
    refused("run", *QUICK, "benchmark.n_experiences=3", "out=runs/failed")
    running, interrupted = (tmp_path / "runs" / name for name in ("running", "interrupted"))
    for directory in (running, interrupted):
        shutil.copytree(tmp_path / "runs" / "finished", directory)
        (directory / "result.json").unlink()
    with DirectoryLock(running):
        status, printed, _ = ftp_cl("watch", "runs")
        latest = {run.state: run.latest for run in statuses(tmp_path / "runs")}
    assert status == 0
    assert "1 running, 1 failed, 1 interrupted, 1 finished" in " ".join(printed.split())
    assert "does not divide" in latest["failed"] and "% on test" in latest["finished"]
    assert "nowhere" in refused("watch", "nowhere")


def test_watch_counts_hours_beyond_a_day_and_shows_what_it_cannot_look_into(tmp_path):
    now = time.time()
    for name, age in [("old\x1b[2J", 26 * 3600 + 61), ("ahead", -500)]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "error.json").write_text("{}")
        (tmp_path / name / "metrics.jsonl").write_text("")
        os.utime(tmp_path / name / "metrics.jsonl", (now - age, now - age))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(status_table(tmp_path))
    shown = console.file.getvalue()
    assert "26:01:0" in shown and "00:00:00" in shown
    assert r"old\x1b[2J" in shown and "\x1b" not in shown
    assert "gone: cannot be followed" in " ".join(shown.split())


def test_a_run_that_still_loads_its_data_is_shown(tmp_path):
    (tmp_path / "left").mkdir()
    (tmp_path / "left" / ".lock").touch()
    with DirectoryLock(tmp_path / "loads"):
        assert [(run.directory.name, run.state) for run in statuses(tmp_path)] == [("loads", "running")]


def test_a_single_run_that_is_refused_late_has_failed_until_it_succeeds(ftp_cl, refused, tmp_path, monkeypatch):
    arguments = ["run", *QUICK, "out=single"]
    with monkeypatch.context() as patch:
        patch.setattr("ftp_cl.runs.run.benchmark_of", refuse)
        refused(*arguments)
    (status,) = statuses(tmp_path)
    assert (status.state, status.latest) == ("failed", "no such images")
    assert ftp_cl(*arguments)[0] == 0
    assert [status.state for status in statuses(tmp_path)] == ["finished"]
    assert not (tmp_path / "single" / "error.json").exists()


def refuse(config):
    raise ValueError("no such images")


@pytest.mark.parametrize("every", ["-1", "0", "nan", "inf", "often"])
def test_an_interval_that_is_none_is_refused(ftp_cl, capsys, every):
    with pytest.raises(SystemExit):
        ftp_cl("watch", "--every", every)
    assert f"--every: '{every}' is no number of seconds above 0" in capsys.readouterr().err
