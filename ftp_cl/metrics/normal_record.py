"""Angles between predicted and true normals by stream and experience: the share within 11.25 degrees as accuracy."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftp_cl.metrics.dense import ANGLES, angle_summary, angular_errors
from ftp_cl.metrics.evaluation_record import Record
from ftp_cl.metrics.plugins import StreamCounts

_STEPS = 100  # of a histogram, to a degree: an angle is known to half of a hundredth

Counts = NDArray[np.int64]


class NormalRecord(Record):
    """Histograms of the angular errors of the last evaluation of each experience of each stream."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], Counts] = {}

    def start(self, row: int, stream: str, experience: int) -> None:
        """Begin to count an experience anew."""
        self._counts[stream, experience] = np.zeros(180 * _STEPS + 1, np.int64)

    def add(self, row: int, stream: str, experience: int, angles: NDArray[np.float64]) -> None:
        """Add the angles of a batch, in degrees."""
        bins = np.minimum((angles * _STEPS).astype(np.int64), 180 * _STEPS)
        self._counts[stream, experience] += np.bincount(bins, minlength=180 * _STEPS + 1)

    def accuracy(self, row: int, stream: str, experiences: Sequence[int]) -> float | None:
        """Return the share of pixels within 11.25 degrees, percent."""
        return self._of(stream, experiences).get(f"within_{ANGLES[0]:g}")

    def summary(self, stream: str, names: Sequence[str] = ()) -> dict[str, Any]:
        """Return what `angle_summary` does, over all experiences of a stream."""
        return self._of(stream, [number for name, number in self._counts if name == stream])

    def _of(self, stream: str, experiences: Iterable[int]) -> dict[str, float]:
        counts = [self._counts[stream, number] for number in experiences if (stream, number) in self._counts]
        total = np.sum(counts, axis=0) if counts else np.zeros(0, np.int64)
        angles = (np.arange(len(total)) + 0.5) / _STEPS
        return angle_summary(angles, total) if total.any() else {}


class NormalCounts(StreamCounts):
    """Counts angular errors for whoever reads the record; emits nothing."""

    record: NormalRecord
    metric, unit = "within_11.25", "within 11.25 degrees"

    def reset(self) -> None:
        """Forget everything."""
        self.record = NormalRecord()

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the angles of a batch."""
        angles = angular_errors(strategy.mb_output.detach(), strategy.mb_y)
        self.record.add(*self._place(strategy), angles.cpu().numpy())
