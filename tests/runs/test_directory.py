"""The run directory: whose it is, and what a run that was refused leaves."""

import json
import os
import shutil

import pytest

from ftp_cl.runs import run as running
from ftp_cl.runs.config import load_config

QUICK = ["benchmark=split_digits", "model=small_cnn", "method=naive", "train.epochs=1", "threads=1"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["benchmark.n_experiences=3"],  # found while the data are prepared
        ["method=ftp", "method.exclude=[backbonne]"],  # and at the first iteration
        ["method=ftp", "method.exclude=[backbonne]", "loggers=[tensorboard]"],
    ],
)
def test_a_refused_run_is_not_in_the_way_of_the_corrected_one(ftp_cl, refused, tmp_path, wrong):
    refused("run", *QUICK, *wrong, "out=run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["error.json"]
    assert ftp_cl("run", *QUICK, "seed=1", "benchmark.n_experiences=1", "eval.ood_every=never", "out=run")[0] == 0


def test_a_result_of_another_configuration_is_not_taken_for_ones_own(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_run", lambda config, record, termination: record.begin())
    config = load_config(QUICK)
    running.run(config, tmp_path / "run")
    for content, told in (
        ({"config": {**running.RunDirectory(tmp_path, config).identity, "seed": 7}}, "differs in seed"),
        ({"config": 5}, "is not a run's"),
        ([], "is not a run's"),
    ):
        (tmp_path / "run" / "result.json").write_text(json.dumps(content))
        assert told in refused("run", *QUICK, "out=run")


@pytest.mark.parametrize("content", [b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"wandb_version: 1"])
def test_a_configuration_of_something_else_is_refused_and_kept(refused, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(content)
    refused("run", *QUICK, "out=run")
    assert [path.read_bytes() for path in (tmp_path / "run").iterdir()] == [content]


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "metrics.jsonl", "error.json"])
def test_a_pipe_among_the_files_of_a_run_is_refused(refused, tmp_path, name):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)
    assert "no regular file" in refused("run", *QUICK, "out=run")
    shutil.move(tmp_path / "run" / name, tmp_path / "pipe.json")
    assert "not a regular file" in refused("run", "--from", "pipe.json")


def test_a_directory_may_be_named_from_home(ftp_cl, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_run", lambda config, record, termination: record.write_result({}))
    monkeypatch.setattr("ftp_cl.study.loading.load_results", lambda paths: [])
    monkeypatch.setattr("ftp_cl.study.tables.terminal_table", lambda results: "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ftp_cl("run", *QUICK, "out='~/run'")[0] == 0
    assert (tmp_path / "home" / "run" / "result.json").exists() and not (tmp_path / "~").exists()
    assert "~nobody_of_this_name" in ftp_cl("run", *QUICK, "out='~nobody_of_this_name/run'")[2]
