"""The events of a run, sent on to TensorBoard, Weights & Biases or MLflow as they happen."""

import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ftp_cl.experiment.config import ConfigError


class ScalarLog(Protocol):
    """Something that draws numbers over iterations."""

    def __call__(self, scalars: Mapping[str, float], step: int) -> None:
        """Take the values of some curves at one step."""


class EventForwarder:
    """Turns events into scalars over training iterations, for one log.

    Args:
        log: takes them.
    """

    def __init__(self, log: ScalarLog) -> None:
        self._log, self._iteration = log, 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Send on one event, as metrics.jsonl has it."""
        self._iteration = event.get("iteration", self._iteration)
        scalars = dict(_scalars(event))
        if scalars:
            self._log(scalars, self._iteration)


def _scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if event["event"] == "train":
        yield "train/loss", event["loss"]
    elif event["event"] == "eval":
        yield f"accuracy/{event['stream']}", statistics.fmean(event["accuracy"])
        for i, accuracy in enumerate(event["accuracy"]):
            yield f"accuracy/{event['stream']}/experience_{i + 1}", accuracy
    elif event["event"] == "projection":
        for name, tensor in event["tensors"].items():
            yield f"radius/{name}", tensor["radius"]


def make_logger(name: str, directory: Path, config: Mapping[str, Any]) -> EventForwarder:
    """The forwarder to one log of a run; TensorBoard's gets what was measured before the run was resumed, too.

    Args:
        name: tensorboard, wandb or mlflow.
        directory: the run's.
        config: resolved; shown beside the curves.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        forwarder = EventForwarder(LOGGERS[name](directory, config))
    except ImportError as error:
        raise ConfigError(f"loggers={name} needs a package: pip install 'ftp-cl[{name}]'.") from error
    events = directory / "metrics.jsonl"
    if name == "tensorboard" and events.exists():
        for line in events.read_text().splitlines():
            forwarder(json.loads(line))
    return forwarder


def _tensorboard(directory: Path, config: Mapping[str, Any]) -> ScalarLog:
    from torch.utils.tensorboard import SummaryWriter

    folder = directory / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)  # written anew from metrics.jsonl
    writer = SummaryWriter(str(folder))

    def log(scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def _wandb(directory: Path, config: Mapping[str, Any]) -> ScalarLog:
    import wandb

    run = wandb.init(project="ftp-cl", name=directory.name, dir=str(directory), config=dict(config), reinit=True)
    return lambda scalars, step: run.log(dict(scalars), step=step)


def _mlflow(directory: Path, config: Mapping[str, Any]) -> ScalarLog:
    import mlflow

    client = mlflow.MlflowClient()
    mlflow.set_experiment("ftp-cl")
    experiment = mlflow.get_experiment_by_name("ftp-cl")
    run_id = client.create_run(experiment.experiment_id, run_name=directory.name).info.run_id

    def log(scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            client.log_metric(run_id, name, value, step=step)

    return log


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], ScalarLog]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""What `loggers=` takes."""
