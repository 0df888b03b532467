"""The loop over the stream: train, evaluate, write down what was measured."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from omegaconf import DictConfig
from torch import Tensor

from ftp_cl.metrics import pseudo_label_quality, summarize
from ftp_cl.metrics.plugins import PredictionCounts, StreamCounts
from ftp_cl.metrics.stream_order import ExperienceKey, first_rows, is_ood, is_whole
from ftp_cl.plugins import FTPPlugin, SemiSupervisedPlugin
from ftp_cl.runs.checkpoints import Checkpoints
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.directory import RunDirectory
from ftp_cl.runs.environment import forget_peak_memory, peak_memory_mb
from ftp_cl.runs.progress import RunProgress

_DIGITS = 6


class Recorder(SupervisedPlugin[Any]):
    """Times iterations, writes the loss of each epoch, moves the bar.

    Attributes:
        step_seconds: of each iteration.
        pseudo_labels: (share used, precision), percent, of each epoch over all experiences; the loop adds to it.
    """

    def __init__(self, record: RunDirectory, progress: RunProgress) -> None:
        super().__init__()
        self.record, self.progress = record, progress
        self.step_seconds: list[float] = []
        self.pseudo_labels: list[tuple[float, float | None]] = []
        self._losses: list[float] = []
        self._unread: list[tuple[Tensor, Any, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The measurements so far."""
        self._read()
        return {
            "step_seconds": torch.tensor(self.step_seconds, dtype=torch.float64),
            "losses": list(self._losses),
            "pseudo_labels": list(self.pseudo_labels),
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """The inverse of `state_dict`; moves the bar to where training goes on."""
        self.step_seconds, self._losses, self._unread = state["step_seconds"].tolist(), state["losses"], []
        self.pseudo_labels = state["pseudo_labels"]
        self.progress.move_to(strategy.clock.train_exp_iterations)

    def _read(self) -> None:
        """Take what the device has measured since the last time; only here is it waited for."""
        if self._unread:
            losses, starts, ends = zip(*self._unread, strict=True)
            self._losses += torch.cat([loss.flatten() for loss in losses]).tolist()
            self.step_seconds += [_seconds(start, end) for start, end in zip(starts, ends, strict=True)]
            self._unread.clear()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The bar of this experience."""
        self.progress.start_experience(
            strategy.clock.train_exp_counter, len(strategy.dataloader) * strategy.train_epochs
        )

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = _moment(strategy.device)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self._unread.append((strategy.loss.detach(), self._start, _moment(strategy.device)))
        self.progress.step()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """One line for the epoch."""
        self._read()
        self.record.add_event(
            "train",
            experience=strategy.clock.train_exp_counter,
            epoch=strategy.clock.train_exp_epochs,
            iteration=strategy.clock.train_iterations,
            loss=statistics.fmean(self._losses),
            seconds=round(sum(self.step_seconds[-len(self._losses) :]), 4),
        )
        self._losses.clear()


def judged_pseudo_labels(
    record: RunDirectory, true_labels: list[list[int]], strategy: SupervisedTemplate, experience: int
) -> list[tuple[float, float | None]]:
    """Write an event "pseudo_labels" to metrics.jsonl per epoch since the last call.

    Nothing that trains may hold the true labels: this is asked between two experiences, and takes from the plugin what
    that has written down.

    Args:
        record: of the run.
        true_labels: of each unlabelled item, per experience; empty if nobody knows them.
        strategy: that has been trained.
        experience: number of the training.

    Returns:
        (share used, precision) of each epoch.
    """
    epochs = []
    for plugin in (plugin for plugin in strategy.plugins if isinstance(plugin, SemiSupervisedPlugin)):
        known = [label for number in plugin.numbers for label in true_labels[number]] if true_labels else []
        for epoch, found in enumerate(plugin.take_pseudo_labels()):
            truth = torch.tensor(known)[found.indices] if known else None
            share, precision = pseudo_label_quality(found.labels, found.used, truth)
            epochs.append((share, precision))
            values = {"images": len(found.labels), "share": share, "precision": precision}
            record.add_event("pseudo_labels", experience=experience, epoch=epoch, **values)
    return epochs


def _moment(device: torch.device) -> Any:
    """Now, in the order of what is computed on a GPU; otherwise by the clock."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start: Any, end: Any) -> float:
    """Between two moments; waits for the second."""
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1000


class Evaluation:
    """Evaluates a strategy on the streams of a benchmark, and tells what of a stream has been trained on.

    Args:
        benchmark: Avalanche's.
        stream: name of the stream that the accuracy matrix is of.
        counts: a metric of the strategy.
        record: takes an event for each evaluation.
        workers: processes that load images; 0: this one.

    Raises:
        ConfigError: there is no such stream, two of its experiences have the same number, or none is trained on.
    """

    def __init__(
        self, benchmark: Any, stream: str, counts: StreamCounts, record: RunDirectory, workers: int = 0
    ) -> None:
        if stream not in benchmark.streams:
            raise ConfigError(
                f"eval.stream={stream} is no stream of the benchmark: use {', '.join(benchmark.streams)}."
            )
        self._streams, self._stream, self._record, self._workers = benchmark.streams, stream, record, workers
        self._counts, self.unit = counts, counts.unit
        self._class_names = benchmark.description.get("class_names", [])
        trained = [[ExperienceKey.of(experience)] for experience in benchmark.train_stream]
        tests = [ExperienceKey.of(experience) for experience in self._streams[stream]]
        self.numbers = sorted(test.number for test in tests)
        if len(set(self.numbers)) < len(tests):
            raise ConfigError(f"The stream {stream!r} has experiences of the same number: {self.numbers}.")
        found = first_rows(trained, tests, is_whole(self._streams[stream]))
        self._first_rows = {number: row for number, row in found.items() if number in self.numbers}
        if not self._first_rows:
            raise ConfigError(f"None of the experiences of the stream {stream!r} ({self.numbers}) is trained on.")

    def accuracies(self, strategy: SupervisedTemplate, row: int) -> list[float]:
        """Percent right in each test experience, by number."""
        self._evaluate(strategy, self._stream, row)
        return self._by_experience(self._stream, self.numbers)

    def on_seen(self, accuracies: Sequence[float], row: int) -> list[float]:
        """Those of the test experiences that have been trained on by a row."""
        return [
            accuracy for number, accuracy in zip(self.numbers, accuracies, strict=True) if self._is_seen(number, row)
        ]

    def matrix(self, rows: Sequence[Sequence[float]]) -> tuple[list[list[float | None]], list[int | None]]:
        """The accuracy matrix, whose column j is test experience j, and the first row of each column."""
        columns = range(self.numbers[-1] + 1)
        matrix = [[dict(zip(self.numbers, row, strict=True)).get(column) for column in columns] for row in rows]
        return matrix, [self._first_rows.get(column) for column in columns]

    def ood(
        self, strategy: SupervisedTemplate, row: int, progress: RunProgress
    ) -> tuple[dict[str, float], dict[str, float | None]]:
        """Percent right in each OOD stream, and what the test stream has on the same classes with the same weights.

        Both are about the experiences that have been trained on. None: the test stream lacks some of the classes.
        """
        names = [name for name, stream in self._streams.items() if is_ood(stream)]
        progress.start_evaluation(len(names))
        seen = [number for number in self.numbers if self._is_seen(number, row)]
        accuracies, references = {}, {}
        for name in names:
            numbers = self._evaluate(strategy, name, row)
            of_seen = numbers if is_whole(self._streams[name]) else [n for n in numbers if self._is_seen(n, row)]
            accuracy = self._counts.record.accuracy(self._counts.row, name, of_seen)
            if accuracy is not None:
                matched = self._counts.record.matched_accuracies(self._counts.row, name, of_seen, self._stream, seen)
                accuracies[name] = round(accuracy, _DIGITS)
                references[name] = None if matched is None else round(matched[1], _DIGITS)
            progress.step()
        return accuracies, references

    def of_pixels(self) -> dict[str, Any]:
        """What the result says of the last evaluation of each stream, where pixels have targets."""
        if isinstance(self._counts, PredictionCounts):
            return {}
        found = {name: self._counts.record.summary(name, self._class_names) for name in self._streams}
        return {
            "metric": self._counts.metric,
            "pixels": {name: numbers for name, numbers in found.items() if numbers},
        }

    def _is_seen(self, number: int, row: int) -> bool:
        return self._first_rows.get(number, row + 1) <= row

    def _evaluate(self, strategy: SupervisedTemplate, name: str, row: int) -> list[int]:
        strategy.evaluator.reset_last_metrics()
        start = time.perf_counter()
        strategy.eval(self._counts.to_evaluate(self._streams[name]), num_workers=self._workers)
        seconds = round(time.perf_counter() - start, 4)
        numbers = sorted(experience.current_experience for experience in self._streams[name])
        accuracy = self._by_experience(name, numbers)
        self._record.add_event(
            "eval", experience=row, stream=name, experiences=numbers, accuracy=accuracy, seconds=seconds
        )
        return numbers

    def _by_experience(self, name: str, numbers: Sequence[int]) -> list[float]:
        accuracies = self._counts.record.accuracies(self._counts.row, name, numbers)
        return [round(accuracy, _DIGITS) for accuracy in accuracies.tolist()]


def train_and_evaluate(
    config: DictConfig,
    benchmark: Any,
    strategy: SupervisedTemplate,
    checkpoints: Checkpoints,
    recorder: Recorder,
    hidden: list[list[int]],
    evaluation: Evaluation,
) -> dict[str, Any]:
    """Train on the stream, from where the checkpoints say; returns what the result file holds of it."""
    record, progress = recorder.record, recorder.progress
    rows, resumed = checkpoints.matrix, checkpoints.resumed
    forget_peak_memory(strategy.device)
    first = 0 if resumed is None else resumed.experience
    for i, experience in enumerate(benchmark.train_stream):
        if i < first:
            continue
        if resumed is None or resumed.epoch is not None or i > first:
            checkpoints.train(strategy, experience, i)
        recorder.pseudo_labels += judged_pseudo_labels(record, hidden, strategy, i)
        rows.append(evaluation.accuracies(strategy, i))
        checkpoints.end_if_asked()
        if seen := evaluation.on_seen(rows[i], i):
            where = f"{progress.name}, experience {i + 1} of {len(benchmark.train_stream)}"
            progress.say(f"{where}: {statistics.fmean(seen):.1f} % {evaluation.unit} on the experiences so far")
        table = projection_table(strategy)
        if table:
            record.add_event("projection", experience=i, tensors=table)
        if config.eval.ood_every == "experience" and i + 1 < len(benchmark.train_stream):
            evaluation.ood(strategy, i, progress)
    never = config.eval.ood_every == "never"
    ood, references = ({}, {}) if never else evaluation.ood(strategy, len(rows) - 1, progress)
    matrix, of_columns = evaluation.matrix(rows)
    return {
        **summarize(matrix, ood, of_columns),
        "ood_reference": references,
        **evaluation.of_pixels(),
        "train_seconds": round(checkpoints.train_seconds(), 3),
        "step_seconds_median": statistics.median(recorder.step_seconds) if recorder.step_seconds else None,
        "pseudo_labels": recorder.pseudo_labels,
        "peak_memory_mb": round(peak_memory_mb(strategy.device), 1),
        "diverged": not all(tensor.isfinite().all() for tensor in strategy.model.parameters()),
    }


def projection_table(strategy: SupervisedTemplate) -> dict[str, dict[str, float]]:
    """Radii and distances per tensor, of the method that projects; empty if none does."""
    return next((plugin.summary() for plugin in strategy.plugins if isinstance(plugin, FTPPlugin)), {})
