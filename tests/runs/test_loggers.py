"""Loggers get what metrics.jsonl says, and cannot end a run."""

import json
import math

import pytest

from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.loggers import LOGGERS, make_logger

RUN = ("method=ftp", "benchmark.n_experiences=2", "eval.ood_every=never")


def mean_accuracies(result):
    return pytest.approx([sum(row) / len(row) for row in result["accuracy_matrix"]], rel=1e-5)


def test_tensorboard_gets_what_the_events_say(quick_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = quick_run(*RUN, "loggers=[tensorboard]")
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [scalar.value for scalar in curves.Scalars("accuracy/test")] == mean_accuracies(result)
    assert any(tag.startswith("radius/") for tag in curves.Tags()["scalars"])


def test_mlflow_gets_what_the_events_say(quick_run, tmp_path, monkeypatch):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    result = quick_run(*RUN, "loggers=[mlflow]")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("ftp-cl").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["method.name"] == "ftp"
    history = client.get_metric_history(run.info.run_id, "accuracy/test")
    assert [metric.value for metric in history] == mean_accuracies(result)
    assert history[0].step < history[1].step


@pytest.mark.slow
def test_wandb_gets_curves_offline(quick_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    quick_run(*RUN, "loggers=[wandb]")
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"accuracy/test/experience_2" in content and b"radius/" in content and b"backbone_lr" in content


class Broken:
    """A log whose disk is full, or whose network is gone."""

    def __init__(self, directory, config): ...

    def add(self, scalars, step):
        raise OSError("gone")

    def close(self, done):
        raise AssertionError("is not asked again")


def test_a_log_that_fails_does_not_end_the_run(ftp_cl, tmp_path, monkeypatch):
    monkeypatch.setitem(LOGGERS, "tensorboard", Broken)
    quick = ("benchmark=split_digits", "model=small_cnn", "train.epochs=1", "train.batch_size=64", "threads=1")
    status, printed, _ = ftp_cl("run", *quick, *RUN, "loggers=[tensorboard]", "out=run")
    assert status == 0 and printed.count("loggers=tensorboard gets no more: gone") == 1


def test_a_log_that_cannot_begin_is_named(tmp_path, monkeypatch):
    def refuse(directory, config):
        raise RuntimeError("no key\nlog in first")

    monkeypatch.setitem(LOGGERS, "wandb", refuse)
    with pytest.raises(ConfigError, match=r"^loggers=wandb cannot begin: no key$"):
        make_logger("wandb", tmp_path, {}, print)


def test_a_log_gets_what_was_measured_before_the_run_was_resumed(tmp_path, monkeypatch):
    class Kept(list):
        def add(self, scalars, step):
            self.append((step, scalars))

    kept = Kept()
    monkeypatch.setitem(LOGGERS, "mlflow", lambda directory, config: kept)
    event = {"event": "train", "experience": 0, "epoch": 0, "iteration": 8, "loss": 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    make_logger("mlflow", tmp_path, {}, print)
    assert kept == [(8, {"train/loss": 2.0})]


def test_events_that_are_damaged_or_not_finite_reach_a_log_as_far_as_they_can(tmp_path, monkeypatch):
    class Kept(list):
        def add(self, scalars, step):
            self.append(scalars)

    kept = Kept()
    monkeypatch.setitem(LOGGERS, "mlflow", lambda directory, config: kept)
    events = [
        {"event": "projection", "experience": 0, "tensors": {"v": {"radius": None}, "w": {"radius": 1.0}}},
        {"event": "train", "experience": 0, "epoch": 0, "iteration": 8, "loss": 2.0},
    ]
    lines = [json.dumps(events[0]), "[1]", '{"event": "tra', json.dumps(events[1])]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    said = []
    forwarder = make_logger("mlflow", tmp_path, {}, said.append)
    assert math.isnan(kept[0]["radius/v"]) and kept[0]["radius/w"] == 1.0 and kept[1] == {"train/loss": 2.0}
    forwarder({"event": "eval", "stream": "test", "accuracy": []})
    assert len(said) == 1 and said[0].startswith("  loggers=mlflow gets no more")
