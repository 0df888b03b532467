"""Runs of seconds: scikit-learn's digits and a small network."""

import json

import pytest

QUICK = ["benchmark=split_digits", "model=small_cnn", "train.epochs=1", "train.batch_size=64", "threads=1"]


@pytest.fixture
def ftp_cl(tmp_path, monkeypatch, capsys):
    """Call the command line in an empty directory; returns (exit status, standard output, standard error)."""
    from ftp_cl.experiment.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main(list(words))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def quick_run(ftp_cl, tmp_path):
    """Run quickly and return the result as a dict."""

    def run(*overrides, out="run"):
        status, _, error = ftp_cl("run", *QUICK, f"out={out}", *overrides)
        assert status == 0, error
        return json.loads((tmp_path / out / "result.json").read_text())

    return run
