"""Avalanche metric plugins on the pure functions of this package."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.training.supervised import JointTraining
from numpy.typing import NDArray
from torch import Tensor

from ftp_cl.metrics import accuracy_matrix as formulas
from ftp_cl.metrics.distance import distance_from_anchor
from ftp_cl.metrics.evaluation_record import EvaluationRecord
from ftp_cl.metrics.robustness import ood_average, relative_robustness
from ftp_cl.metrics.stream_order import ExperienceKey, first_rows, is_ood, is_whole

Value = TypeVar("Value")

# Functions of (accuracy matrix, sizes, first rows).
_OF_THE_MATRIX = (
    *("average_accuracy", "average_incremental_accuracy", "average_forgetting", "stepwise_forgetting"),
    *("backward_transfer", "learning_accuracy"),
)


class StreamCounts(PluginMetric[dict[str, float]]):
    """Base of what counts a strategy's answers by stream and experience, for whoever reads the record; emits nothing.

    Attributes:
        record: of the last evaluation of each experience in each row; has `start`, `add` and what `Record` has.
        metric: what the numbers called accuracy are, by its name in a result.
        unit: the same in words.
    """

    record: Any
    metric = unit = "accuracy"

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def __str__(self) -> str:
        return type(self).__name__

    @property
    def row(self) -> int:
        """Of the record, in which is counted now."""
        return 0

    def result(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def to_evaluate(self, stream: Any) -> Any:
        """Return what of a stream must be gone through for the numbers of all its experiences: everything."""
        return stream

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin with one experience of one stream."""
        self.record.start(*self._place(strategy))

    def _place(self, strategy: Any) -> tuple[int, str, int]:
        experience = strategy.experience
        return self.row, experience.origin_stream.name, experience.current_experience


class PredictionCounts(StreamCounts):
    """Counts right predictions by stream, experience, task and class, for whoever reads the record; emits nothing.

    Args:
        bins: of confidence, for the calibration error.

    Attributes:
        classes_of: stream -> the classes that predictions in it are among; of other streams they are among all.
    """

    record: EvaluationRecord

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        self.classes_of: Mapping[str, Sequence[int]] = {}
        super().__init__()

    def reset(self) -> None:
        """Forget everything."""
        self.record = EvaluationRecord(self.bins)

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the predictions of a batch."""
        scores, labels = strategy.mb_output.detach().float(), strategy.mb_y
        classes = self.classes_of.get(strategy.experience.origin_stream.name)
        if classes is not None:
            others = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
            others[[label for label in classes if label < len(others)]] = False
            scores = scores.masked_fill(others, -torch.inf)
        predicted = scores.argmax(dim=1)
        # Rounding may lift a softmax above 1; a model that has diverged to NaN is confident of nothing.
        confidence = scores.softmax(dim=1).gather(1, predicted[:, None])[:, 0].nan_to_num(0.0).clamp(max=1)
        self.record.add(
            *self._place(strategy),
            confidence.cpu().numpy(),
            (predicted == labels).cpu().numpy(),
            torch.stack([strategy.mb_task_id, labels], dim=1).cpu().numpy(),
        )


class ContinualMetrics(PredictionCounts):
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

    It keeps accuracies per stream and experience, so an OOD evaluation does not change forgetting, as it does in
    Avalanche's own metric. In task-incremental streams each experience is evaluated with its task's head, as the
    strategy does. An evaluation during training (``eval_every``) counts for that training; the last one replaces
    earlier ones.

    Experiences can come in any order, again, or all at once (Avalanche's ``JointTraining``): the matrix has a row for
    each training, and column j is test experience j. Trainings on one experience without an evaluation between them
    share a row; so do the parts of an experience of an online stream. A test stream of one experience
    (``ni_benchmark``) belongs to all trainings.

    Values are over the test experiences trained on so far, and the same experiences of OOD streams. A value that cannot
    be computed is left out: forgetting before the second training, or if the test stream was not evaluated after each;
    forward transfer unless the test stream was also evaluated before training; relative robustness where an OOD stream
    has classes that the test stream lacks.

    Metrics, by name in ``result()`` and CamelCase in logs (``AverageAccuracy/eval_phase/test_stream``), in percent or
    percentage points: average_accuracy, average_incremental_accuracy, average_forgetting (maximum-based),
    stepwise_forgetting, backward_transfer, forward_transfer, learning_accuracy, expected_calibration_error; and with
    OOD streams ood_average, relative_robustness (a ratio), ood_expected_calibration_error (mean over the streams). The
    functions of the same names in ``ftp_cl.metrics`` have the formulas and sources.

    Args:
        test_stream: name of the stream of the accuracy matrix.
        ood_prefix: a stream of your own is OOD if its name begins so; benchmarks of this package mark theirs.
        weight_by_size: True weighs experiences by their number of test samples; False, as in the papers, equally.
        bins: number of confidence bins of the calibration error; 15 as in its paper.
    """

    def __init__(
        self, *, test_stream: str = "test", ood_prefix: str = "ood_", weight_by_size: bool = False, bins: int = 15
    ) -> None:
        super().__init__(bins)
        self.test_stream = test_stream
        self.ood_prefix = ood_prefix
        self.weight_by_size = weight_by_size

    @property
    def row(self) -> int:
        """The number of trainings so far."""
        return len(self._trained)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._trained: list[tuple[ExperienceKey, ...]] = []
        self._tests: dict[int, ExperienceKey] = {}
        self._whole: set[str] = set()
        self._ood: set[str] = set()
        self._just_evaluated: set[str] = set()

    def result(self) -> dict[str, float]:
        """Return every metric that can be computed now, after the experiences trained on so far."""
        return {**self._test_results(), **self._ood_results()}

    def accuracy_matrix(self) -> NDArray[np.float64]:
        """Return the accuracies, percent, NaN where not evaluated.

        Row i is after the i-th training, column j is test experience j, up to the last one trained on: T x T after
        experiences 0 to T - 1. For other orders see `first_rows`.
        """
        columns = range(len(self.first_rows()))
        accuracies = [self.record.accuracies(row, self.test_stream, columns) for row in range(1, self.row + 1)]
        return np.array(accuracies).reshape(self.row, len(columns))

    def first_rows(self) -> list[int | None]:
        """Return for each column the row after whose training it had first been trained on; None if it never was."""
        found = self._first_rows()
        return [found.get(column) for column in range(max(found, default=-1) + 1)]

    def ood_accuracies(self) -> dict[str, float]:
        """Return the accuracy over all samples of each OOD stream evaluated since the last training, percent."""
        return self._of_ood_streams(lambda name, seen: self.record.accuracy(self.row, name, seen))

    # ---- values ------------------------------------------------------------------------------------------------------

    def _first_rows(self) -> dict[int, int]:
        return first_rows(self._trained, list(self._tests.values()), self.test_stream in self._whole)

    def _seen(self, stream: str) -> list[int]:
        """The experiences of a stream that have been trained on."""
        return [0] if stream in self._whole else sorted(self._first_rows())

    def _test_results(self) -> dict[str, float]:
        if not self.row:
            return {}
        matrix, first, seen = self.accuracy_matrix(), self.first_rows(), self._seen(self.test_stream)
        columns = range(len(first))
        sizes = self.record.sizes(self.row, self.test_stream, columns) if self.weight_by_size else None
        results = {}
        for name in _OF_THE_MATRIX:
            with suppress(ValueError):  # an entry that the formula reads was not evaluated
                results[name] = getattr(formulas, name)(matrix, sizes, first)
        with suppress(ValueError):
            untrained = self.record.accuracies(0, self.test_stream, columns)
            results["forward_transfer"] = formulas.forward_transfer(matrix, untrained, sizes, first)
        error = self.record.calibration_error(self.row, self.test_stream, seen)
        return results if error is None else {**results, "expected_calibration_error": error}

    def _ood_results(self) -> dict[str, float]:
        accuracies = self.ood_accuracies()
        if not accuracies:
            return {}
        results = {"ood_average": ood_average(accuracies)}
        test = self._seen(self.test_stream)
        pairs = self._of_ood_streams(
            lambda name, seen: self.record.matched_accuracies(self.row, name, seen, self.test_stream, test)
        )
        if len(pairs) == len(accuracies):
            ood, in_distribution = np.mean(list(pairs.values()), axis=0)
            with suppress(ValueError):  # an accuracy of 0
                results["relative_robustness"] = relative_robustness(ood, in_distribution)
        errors = self._of_ood_streams(lambda name, seen: self.record.calibration_error(self.row, name, seen))
        return {**results, "ood_expected_calibration_error": float(np.mean(list(errors.values())))}

    def _of_ood_streams(self, measure: Callable[[str, list[int]], Value | None]) -> dict[str, Value]:
        streams = [name for name in self.record.streams(self.row) if name in self._ood]
        values = {name: measure(name, self._seen(name)) for name in streams}
        return {name: value for name, value in values.items() if value is not None}

    # ---- callbacks ---------------------------------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any) -> None:
        """Note what is trained on."""
        joint = isinstance(strategy, JointTraining)
        trained_on = tuple(ExperienceKey.of(e) for e in (strategy._experiences if joint else [strategy.experience]))
        is_later_part = not getattr(strategy.experience, "is_first_subexp", True)
        goes_on = is_later_part or not self.record.streams(self.row)
        if not (self._trained and self._trained[-1] == trained_on and goes_on):
            self._trained.append(trained_on)

    def before_eval(self, strategy: Any) -> None:
        """Begin to note which streams are evaluated."""
        self._just_evaluated = set()

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin with one experience of one stream."""
        stream = strategy.experience.origin_stream
        self._just_evaluated.add(stream.name)
        if is_whole(stream):
            self._whole.add(stream.name)
        if is_ood(stream, self.ood_prefix):
            self._ood.add(stream.name)
        if stream.name == self.test_stream:
            self._tests[strategy.experience.current_experience] = ExperienceKey.of(strategy.experience)
        super().before_eval_exp(strategy)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit what the streams that were just evaluated have changed."""
        values: dict[str, float] = {}
        if self.test_stream in self._just_evaluated:
            values |= {f"{_camel(k)}/eval_phase/{self.test_stream}_stream": v for k, v in self._test_results().items()}
        if self._ood & self._just_evaluated:
            values |= {f"{_camel(k)}/eval_phase": v for k, v in self._ood_results().items()}
        x = strategy.clock.train_iterations
        return [MetricValue(self, name, value, x) for name, value in values.items()]


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
