"""Avalanche metric plugins on the pure functions of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from numpy.typing import NDArray
from torch import Tensor

from ftp_cl.metrics.accuracy_matrix import (
    average_accuracy,
    average_forgetting,
    average_incremental_accuracy,
    backward_transfer,
    forward_transfer,
    learning_accuracy,
    stepwise_forgetting,
)
from ftp_cl.metrics.distance import distance_from_anchor
from ftp_cl.metrics.evaluation_record import EvaluationRecord
from ftp_cl.metrics.robustness import ood_average, relative_robustness

Sizes = Sequence[int] | None

# Functions of (accuracy matrix, sizes).
_OF_THE_MATRIX: dict[str, Callable[..., float]] = {
    "average_accuracy": average_accuracy,
    "average_incremental_accuracy": average_incremental_accuracy,
    "average_forgetting": average_forgetting,
    "stepwise_forgetting": stepwise_forgetting,
    "backward_transfer": backward_transfer,
    "learning_accuracy": learning_accuracy,
}


class ContinualMetrics(PluginMetric[dict[str, float]]):
    """Metrics of continual learning and robustness from one forward pass per image, right for any number of streams.

    Hand it to Avalanche's ``EvaluationPlugin``, evaluate the test stream after each experience, and OOD streams when
    they are wanted::

        metrics = ContinualMetrics()
        strategy = Naive(..., evaluator=EvaluationPlugin(metrics, loggers=[InteractiveLogger()]))
        for experience in benchmark.train_stream:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)
        strategy.eval(benchmark.streams["ood_fog_3"])
        print(metrics.result(), metrics.accuracy_matrix())

    Accuracies are kept per stream and experience, so that OOD streams do not disturb forgetting, as they do in
    Avalanche's own metric. In task-incremental streams each experience is evaluated with its task's head, as the
    strategy does it. Whatever is evaluated while an experience is trained on (``eval_every``) counts for that
    experience, the last evaluation replacing earlier ones. The parts of an experience of an online stream count as
    one experience.

    After i experiences, values refer to what has been seen: to the i x i matrix of the first i experiences, and to the
    same experiences of OOD streams. A value is left out while it cannot be computed: forgetting before the second
    experience, or if the test stream was not evaluated after each; forward transfer unless it was also evaluated
    before training.

    Metrics, by name in ``result()`` and CamelCase in logs (``AverageAccuracy/eval_phase/test_stream``), in percent or
    percentage points: average_accuracy, average_incremental_accuracy, average_forgetting (maximum-based),
    stepwise_forgetting, backward_transfer, forward_transfer, learning_accuracy, expected_calibration_error; and with
    OOD streams ood_average, relative_robustness (a ratio), ood_expected_calibration_error (mean over the streams). The
    formulas and their sources stand with the functions of the same names.

    Args:
        test_stream: the name of the stream that the accuracy matrix is of.
        ood_prefix: streams whose names begin so are OOD streams.
        weight_by_size: weigh experiences by their number of test samples; by default all count the same, as in the
            papers. On experiences of unequal size the two differ.
        bins: of confidence, for the calibration error.
    """

    def __init__(
        self, *, test_stream: str = "test", ood_prefix: str = "ood_", weight_by_size: bool = False, bins: int = 15
    ) -> None:
        super().__init__()
        self.test_stream = test_stream
        self.ood_prefix = ood_prefix
        self.weight_by_size = weight_by_size
        self.record = EvaluationRecord(bins)
        self._trained: list[int] = []
        self._just_evaluated: set[str] = set()

    def __str__(self) -> str:
        return "ContinualMetrics"

    def reset(self) -> None:
        """Forget everything."""
        self.record = EvaluationRecord(self.record.bins)
        self._trained.clear()

    def result(self) -> dict[str, float]:
        """Return every metric that can be computed now, after the experiences trained on so far."""
        return {**self._test_results(), **self._ood_results()}

    def accuracy_matrix(self) -> NDArray[np.float64]:
        """Return the accuracies on the experiences trained on, percent, T x T; NaN where not evaluated."""
        rows = range(1, len(self._trained) + 1)
        accuracies = [self.record.accuracies(row, self.test_stream, self._trained) for row in rows]
        return np.array(accuracies).reshape(len(self._trained), len(self._trained))

    def ood_accuracies(self) -> dict[str, float]:
        """Return the accuracy over all samples of each OOD stream evaluated since the last training, percent."""
        return self._of_ood_streams(self.record.accuracy)

    # ---- values ------------------------------------------------------------------------------------------------------

    def _test_results(self) -> dict[str, float]:
        row = len(self._trained)
        if not row:
            return {}
        matrix = self.accuracy_matrix()
        sizes = self.record.sizes(row, self.test_stream, self._trained) if self.weight_by_size else None
        results = {}
        for name, function in _OF_THE_MATRIX.items():
            with suppress(ValueError):  # an entry that the formula reads was not evaluated
                results[name] = function(matrix, sizes)
        with suppress(ValueError):
            untrained = self.record.accuracies(0, self.test_stream, self._trained)
            results["forward_transfer"] = forward_transfer(matrix, untrained, sizes)
        error = self.record.calibration_error(row, self.test_stream, self._trained)
        return results if error is None else {**results, "expected_calibration_error": error}

    def _ood_results(self) -> dict[str, float]:
        accuracies = self.ood_accuracies()
        if not accuracies:
            return {}
        results = {"ood_average": ood_average(accuracies)}
        with suppress(ValueError):
            in_distribution = self._test_results().get("average_accuracy", 0.0)
            results["relative_robustness"] = relative_robustness(results["ood_average"], in_distribution)
        errors = self._of_ood_streams(self.record.calibration_error)
        return {**results, "ood_expected_calibration_error": float(np.mean(list(errors.values())))}

    def _of_ood_streams(self, measure: Callable[[int, str, Sequence[int]], float | None]) -> dict[str, float]:
        row = len(self._trained)
        streams = [name for name in self.record.streams(row) if name.startswith(self.ood_prefix)]
        values = {name: measure(row, name, self._trained) for name in streams}
        return {name: value for name, value in values.items() if value is not None}

    # ---- callbacks ---------------------------------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any) -> None:
        """Note which experience is trained on."""
        experience = getattr(strategy.experience, "origin_experience", None) or strategy.experience
        if experience.current_experience not in self._trained:
            self._trained.append(experience.current_experience)

    def before_eval(self, strategy: Any) -> None:
        """Begin to note which streams are evaluated."""
        self._just_evaluated = set()

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin with one experience of one stream."""
        self._just_evaluated.add(strategy.experience.origin_stream.name)
        self.record.start(*self._place(strategy))

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the predictions of a batch."""
        confidence, predicted = strategy.mb_output.detach().float().softmax(dim=1).max(dim=1)
        correct = predicted == strategy.mb_y
        # Rounding may lift a softmax above 1; a model that has diverged to NaN is confident of nothing.
        confidence = confidence.nan_to_num(0.0).clamp(max=1)
        self.record.add(*self._place(strategy), confidence.cpu().numpy(), correct.cpu().numpy())

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit what the streams that were just evaluated have changed."""
        values: dict[str, float] = {}
        if self.test_stream in self._just_evaluated:
            values |= {f"{_camel(k)}/eval_phase/{self.test_stream}_stream": v for k, v in self._test_results().items()}
        if any(name.startswith(self.ood_prefix) for name in self._just_evaluated):
            values |= {f"{_camel(k)}/eval_phase": v for k, v in self._ood_results().items()}
        x = strategy.clock.train_iterations
        return [MetricValue(self, name, value, x) for name, value in values.items()]

    def _place(self, strategy: Any) -> tuple[int, str, int]:
        experience = strategy.experience
        return len(self._trained), experience.origin_stream.name, experience.current_experience


class DistanceFromAnchor(PluginMetric[dict[str, float]]):
    """How far each weight tensor has moved from its anchor, emitted after each experience.

    Args:
        anchor: ``"initial"``, the weights before the first training step, or ``"previous"``, those before the first
            step of the experience that has just ended.
        parameters: which parameters, by name; by default all that are trained.
    """

    def __init__(self, anchor: str = "initial", parameters: Callable[[str], bool] | None = None) -> None:
        super().__init__()
        if anchor not in ("initial", "previous"):
            raise ValueError(f"anchor={anchor!r} is neither 'initial' nor 'previous'.")
        self.anchor = anchor
        self.parameters = parameters
        self.reset()

    def __str__(self) -> str:
        return "DistanceFromAnchor"

    def reset(self) -> None:
        """Forget the anchor and the distances."""
        self._anchors: dict[str, Tensor] = {}
        self._distances: dict[str, float] = {}
        self._take = False

    def result(self) -> dict[str, float]:
        """Return the distance of each tensor after the last experience, see `distance_from_anchor`."""
        return dict(self._distances)

    def before_training_exp(self, strategy: Any) -> None:
        """Ask for an anchor."""
        self._take = self.anchor == "previous" or not self._anchors

    def before_training_iteration(self, strategy: Any) -> None:
        """Take the anchor, here rather than earlier because some strategies reset weights before the first step."""
        if self._take:
            self._anchors = {name: weights.detach().clone() for name, weights in self._weights(strategy).items()}
            self._take = False

    def after_training_exp(self, strategy: Any) -> list[MetricValue]:
        """Emit the distances."""
        self._distances = distance_from_anchor(self._weights(strategy), self._anchors)
        x = strategy.clock.train_iterations
        return [MetricValue(self, f"{self}/train_phase/{name}", d, x) for name, d in self._distances.items()]

    def _weights(self, strategy: Any) -> Mapping[str, Tensor]:
        wanted = self.parameters or (lambda name: True)
        return {n: p for n, p in strategy.model.named_parameters() if p.requires_grad and wanted(n)}


def _camel(name: str) -> str:
    return "".join(part.upper() if part == "ood" else part.capitalize() for part in name.split("_"))
