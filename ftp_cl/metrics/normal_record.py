"""Angles between predicted and true normals by stream and experience: the share within 11.25 degrees as accuracy."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from numpy.typing import NDArray

from ftp_cl.metrics.dense import ANGLES, angle_summary, angular_errors

_STEPS = 100  # of a histogram, to a degree: an angle is known to half of a hundredth

Counts = NDArray[np.int64]


class NormalRecord:
    """Histograms of the angular errors of the last evaluation of each experience of each stream."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], Counts] = {}

    def start(self, stream: str, experience: int) -> None:
        """Begin to count an experience anew."""
        self._counts[stream, experience] = np.zeros(180 * _STEPS + 1, np.int64)

    def add(self, stream: str, experience: int, angles: NDArray[np.float64]) -> None:
        """Add the angles of a batch, in degrees."""
        bins = np.minimum((angles * _STEPS).astype(np.int64), 180 * _STEPS)
        self._counts[stream, experience] += np.bincount(bins, minlength=180 * _STEPS + 1)

    def accuracies(self, row: int, stream: str, experiences: Sequence[int]) -> NDArray[np.float64]:
        """Return the share of pixels within 11.25 degrees in each experience, percent."""
        found = [self.accuracy(row, stream, [number]) for number in experiences]
        return np.array([np.nan if share is None else share for share in found])

    def accuracy(self, row: int, stream: str, experiences: Iterable[int]) -> float | None:
        """Return the share of pixels within 11.25 degrees, percent."""
        return self._of(stream, experiences).get(f"within_{ANGLES[0]:g}")

    def matched_accuracies(
        self, row: int, stream: str, experiences: Sequence[int], reference: str, reference_experiences: Sequence[int]
    ) -> tuple[float, float] | None:
        """Return the share on a stream, and on another one."""
        found = [self.accuracy(row, *pair) for pair in ((stream, experiences), (reference, reference_experiences))]
        return None if None in found else (found[0], found[1])  # type: ignore[return-value]

    def summary(self, stream: str, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return what `angle_summary` does, over all experiences of a stream."""
        return self._of(stream, [number for name, number in self._counts if name == stream])

    def _of(self, stream: str, experiences: Iterable[int]) -> dict[str, float]:
        counts = [self._counts[stream, number] for number in experiences if (stream, number) in self._counts]
        total = np.sum(counts, axis=0) if counts else np.zeros(0, np.int64)
        angles = (np.arange(len(total)) + 0.5) / _STEPS
        return angle_summary(angles, total) if total.any() else {}


class NormalCounts(PluginMetric[dict[str, float]]):
    """Counts angular errors for whoever reads the record; emits nothing."""

    row = 0
    """Of the record, which keeps the last evaluation alone."""

    def __init__(self) -> None:
        super().__init__()
        self.record = NormalRecord()

    def __str__(self) -> str:
        return type(self).__name__

    def reset(self) -> None:
        """Forget everything."""
        self.record = NormalRecord()

    def result(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def to_evaluate(self, stream: Any) -> Any:
        """Return what of a stream must be gone through for the numbers of all its experiences: everything."""
        return stream

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin with one experience of one stream."""
        self.record.start(*_place(strategy))

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the angles of a batch."""
        angles = angular_errors(strategy.mb_output.detach(), strategy.mb_y)
        self.record.add(*_place(strategy), angles.cpu().numpy())

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit nothing."""
        return []


def _place(strategy: Any) -> tuple[str, int]:
    return strategy.experience.origin_stream.name, strategy.experience.current_experience
