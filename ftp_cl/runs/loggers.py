"""The events of a run, sent on to TensorBoard, Weights & Biases or MLflow as they happen."""

import math
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ftp_cl.runs.records import EvalEvent, ProjectionEvent, TrainEvent, events
from ftp_cl.runs.schema import ConfigError, flat
from ftp_cl.runs.text import printable

LOGGER_FOLDERS = ("tensorboard", "wandb")
"""What loggers write in the run's directory."""


class EventForwarder:
    """Turns events into scalars over training iterations, for one log, as a context manager.

    A log that fails falls silent, which the user is told: it must not end the run, whose own record goes on.

    Args:
        name: of the log.
        log: takes the scalars: `add(scalars, step)` those of a step, `close(done)` ends; `done`: so did the run.
        say: takes lines for the user.
    """

    def __init__(self, name: str, log: Any, say: Callable[[str], None]) -> None:
        self._name, self._say, self._iteration = name, say, 0
        self._log = log

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Send on one event, as metrics.jsonl has it."""
        self._try(lambda log: self._send(log, event))

    def _send(self, log: Any, event: Mapping[str, Any]) -> None:
        self._iteration = event.get("iteration", self._iteration)
        if scalars := dict(_scalars(event)):
            log.add(scalars, self._iteration)

    def __enter__(self) -> "EventForwarder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self._try(lambda log: log.close(kind is None))

    def _try(self, act: Callable[[Any], None]) -> None:
        if self._log is None:
            return
        try:
            act(self._log)
        except Exception as error:
            self._log = None
            self._say(f"  loggers={self._name} gets no more: {_first_line(error)}")


def _scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if event["event"] == "train":
        yield "train/loss", _number(event["loss"])
    elif event["event"] == "eval":
        yield f"accuracy/{event['stream']}", statistics.fmean(event["accuracy"])
        numbers = event.get("experiences", range(len(event["accuracy"])))  # older runs did not write them
        for i, accuracy in zip(numbers, event["accuracy"], strict=True):
            yield f"accuracy/{event['stream']}/experience_{i + 1}", accuracy
    elif event["event"] == "projection":
        for name, tensor in event["tensors"].items():
            yield f"radius/{name}", _number(tensor["radius"])


def _number(value: float | None) -> float:
    """A number that was not finite is null in metrics.jsonl."""
    return math.nan if value is None else value


def make_logger(name: str, directory: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> EventForwarder:
    """The forwarder to one log of a run, which gets what was measured before the run was resumed, too.

    Args:
        name: tensorboard, wandb or mlflow.
        directory: the run's.
        config: resolved; shown beside the curves.
        say: takes lines for the user.

    Raises:
        ConfigError: its package is not installed, or it cannot begin.
    """
    try:
        forwarder = EventForwarder(name, LOGGERS[name](directory, config), say)
    except ImportError as error:
        raise ConfigError(f"loggers={name} needs a package: pip install 'ftp-cl[{name}]'.") from error
    except Exception as error:
        raise ConfigError(f"loggers={name} cannot begin: {_first_line(error)}") from error
    for event in events(directory, TrainEvent, EvalEvent, ProjectionEvent):
        forwarder(event.model_dump(exclude_unset=True))
    return forwarder


def _first_line(error: Exception) -> str:
    return printable(next(iter(str(error).splitlines()), type(error).__name__))


def _run_name(directory: Path) -> str:
    """What the run is called in a log: the same for out=. as from beside the directory."""
    return printable(directory.resolve().name)


class TensorBoard:
    """Event files in tensorboard/ of the run's directory, written anew when the run is resumed."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = directory / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("configuration", "".join(f"    {key}: {value}\n" for key, value in flat(config).items()))

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write them at once: somebody may be watching."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, done: bool) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project ftp-cl; a resumed run is a new one."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project="ftp-cl", name=_run_name(directory), dir=str(directory), config=dict(config))

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Queue them."""
        self._run.log(dict(scalars), step=step)

    def close(self, done: bool) -> None:
        """Send what is queued."""
        self._run.finish(exit_code=0 if done else 1)


class MLflow:
    """A run of the experiment ftp-cl at MLflow's tracking address; a resumed run is a new one."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()
        experiment = mlflow.set_experiment("ftp-cl")
        self._id = self._client.create_run(experiment.experiment_id, run_name=_run_name(directory)).info.run_id
        params = [Param(key, str(value)[:_MLFLOW_LONGEST]) for key, value in flat(config).items()]
        for some in _batches(params, _MLFLOW_PARAMS):
            self._client.log_batch(self._id, params=some)

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Write them together."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_MLFLOW_NO_NAME.sub("_", name), value, now, step) for name, value in scalars.items()]
        for some in _batches(metrics, _MLFLOW_METRICS):
            self._client.log_batch(self._id, metrics=some)

    def close(self, done: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._id, "FINISHED" if done else "FAILED")


# What MLflow takes at a time, in a value, and in a name.
_MLFLOW_PARAMS, _MLFLOW_METRICS, _MLFLOW_LONGEST = 100, 1000, 6000
_MLFLOW_NO_NAME = re.compile(r"[^/\w.\- :]")


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Any]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""What `loggers=` takes."""
