"""The loop over the stream: train, evaluate, write down what was measured."""

import math
import statistics
import time
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from omegaconf import DictConfig

from ftp_cl.experiment.environment import forget_peak_memory, peak_memory_mb
from ftp_cl.experiment.labels import PseudoLabelJudge
from ftp_cl.experiment.progress import RunProgress
from ftp_cl.experiment.record import RunDirectory
from ftp_cl.experiment.training import Checkpoints
from ftp_cl.metrics import summarize
from ftp_cl.plugins import FTPPlugin


class Recorder(SupervisedPlugin[Any]):
    """Times iterations, writes the loss of each epoch, moves the bar."""

    def __init__(self, record: RunDirectory, progress: RunProgress) -> None:
        super().__init__()
        self.record, self.progress = record, progress
        self.step_seconds: list[float] = []
        self._losses: list[float] = []

    def checkpoint_state(self) -> dict[str, Any]:
        """The measurements so far."""
        return {"step_seconds": torch.tensor(self.step_seconds, dtype=torch.float64), "losses": list(self._losses)}

    def restore_state(self, state: dict[str, Any], strategy: Any) -> None:
        """The inverse of `checkpoint_state`; moves the bar to where training goes on."""
        self.step_seconds, self._losses = state["step_seconds"].tolist(), state["losses"]
        self.progress.move_to(strategy.clock.train_exp_iterations)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The bar of this experience."""
        self.progress.start_experience(
            strategy.clock.train_exp_counter, len(strategy.dataloader) * strategy.train_epochs
        )

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Stop the clock."""
        self._losses.append(strategy.loss.item())
        self.step_seconds.append(time.perf_counter() - self._start)
        self.progress.advance()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """One line for the epoch."""
        loss = statistics.fmean(self._losses)
        self.record.add_event(
            "train",
            experience=strategy.clock.train_exp_counter,
            epoch=strategy.clock.train_exp_epochs,
            iteration=strategy.clock.train_iterations,
            loss=loss if math.isfinite(loss) else None,  # JSON has no NaN
            seconds=round(sum(self.step_seconds[-len(self._losses) :]), 4),
        )
        self._losses.clear()


def train_and_evaluate(
    config: DictConfig,
    benchmark: Any,
    strategy: SupervisedTemplate,
    checkpoints: Checkpoints,
    recorder: Recorder,
    judge: PseudoLabelJudge,
) -> dict[str, Any]:
    """Train on the stream, from where the checkpoints say; returns what the result file holds of it."""
    record, progress = recorder.record, recorder.progress
    matrix, resumed = checkpoints.measured.matrix, checkpoints.resumed
    forget_peak_memory(strategy.device)
    first = 0 if resumed is None else resumed.experience
    for i, experience in enumerate(benchmark.train_stream):
        if i < first:
            continue
        if resumed is None or resumed.epoch is not None or i > first:
            checkpoints.train(strategy, experience)
        judge.judge(strategy, i)
        matrix.append(_evaluate(strategy, benchmark.streams[config.eval.stream], config.eval.stream, i, record)[0])
        seen = statistics.fmean(matrix[i][: i + 1])
        progress.say(f"  after experience {i + 1} of {len(benchmark.train_stream)}: {seen:.1f} % on what was seen")
        table = projection_table(strategy)
        if table:
            record.add_event("projection", experience=i, tensors=table)
        if config.eval.ood_every == "experience" and i + 1 < len(benchmark.train_stream):
            _evaluate_ood(strategy, benchmark, i, recorder)
    never = config.eval.ood_every == "never"
    ood = {} if never else _evaluate_ood(strategy, benchmark, len(matrix) - 1, recorder)
    return {
        **summarize(matrix, ood),
        "train_seconds": round(checkpoints.train_seconds(), 3),
        "step_seconds_median": statistics.median(recorder.step_seconds) if recorder.step_seconds else None,
        "peak_memory_mb": round(peak_memory_mb(strategy.device), 1),
    }


def _evaluate_ood(
    strategy: SupervisedTemplate, benchmark: Any, experience: int, recorder: Recorder
) -> dict[str, float]:
    """Percent right in each OOD stream."""
    names = [name for name in benchmark.streams if name.startswith("ood_")]
    recorder.progress.start_evaluation(len(names))
    accuracies = {}
    for name in names:
        accuracies[name] = _evaluate(strategy, benchmark.streams[name], name, experience, recorder.record)[1]
        recorder.progress.advance()
    return accuracies


def _evaluate(
    strategy: SupervisedTemplate, stream: Any, name: str, experience: int, record: RunDirectory
) -> tuple[list[float], float]:
    """Percent right in each experience of a stream, and over all its images."""
    strategy.evaluator.reset_last_metrics()
    start = time.perf_counter()
    metrics = strategy.eval(stream)
    seconds = time.perf_counter() - start
    per_experience = [value for key, value in sorted(metrics.items()) if key.startswith("Top1_Acc_Exp/eval_phase/")]
    accuracy = [round(100 * value, 6) for value in per_experience]
    # Avalanche's own value for the stream is one for each task label where there are several.
    sizes = [len(experience.dataset) for experience in stream]
    overall = sum(size * value for size, value in zip(sizes, accuracy, strict=True)) / sum(sizes)
    record.add_event("eval", experience=experience, stream=name, accuracy=accuracy, seconds=round(seconds, 4))
    return accuracy, round(overall, 6)


def projection_table(strategy: SupervisedTemplate) -> dict[str, dict[str, float]]:
    """Radii and distances per tensor, of the method that projects; empty if none does."""
    return next((plugin.summary() for plugin in strategy.plugins if isinstance(plugin, FTPPlugin)), {})
