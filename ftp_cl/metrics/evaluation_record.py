"""What was measured when: accuracy and calibration of every experience of every stream, after every training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ftp_cl.metrics.calibration import calibration_gaps

_Cells = Mapping[tuple[int, ...], tuple[int, int]]
"""Right predictions and samples of each cell: a class of a task, as a rule."""


@dataclass
class _Counts:
    """Sums over the samples of one experience; enough for accuracy and calibration, whatever their number."""

    gaps: NDArray[np.float64]
    cells: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)


class Record:
    """What was measured of streams and their experiences; `row` is of the accuracy matrix, where there are several."""

    def accuracy(self, row: int, stream: str, experiences: Sequence[int]) -> float | None:
        """Return the accuracy, or what stands for it, over some experiences, percent; None if none was evaluated."""
        raise NotImplementedError

    def accuracies(self, row: int, stream: str, experiences: Sequence[int]) -> NDArray[np.float64]:
        """Return that on each experience, percent, shape (len(experiences),); NaN where not evaluated."""
        found = [self.accuracy(row, stream, [experience]) for experience in experiences]
        return np.array([np.nan if accuracy is None else accuracy for accuracy in found], np.float64)

    def matched_accuracies(
        self, row: int, stream: str, experiences: Sequence[int], reference: str, reference_experiences: Sequence[int]
    ) -> tuple[float, float] | None:
        """Return that on a stream, and on another one over the same classes; None if it is not known."""
        mine, its = self.accuracy(row, stream, experiences), self.accuracy(row, reference, reference_experiences)
        return None if mine is None or its is None else (mine, its)


class EvaluationRecord(Record):
    """Counts of predictions by row, stream and experience.

    A row is the number of trainings before: row 0 is before any training, row i the i-th row of the accuracy matrix.
    Samples arrive in batches, each once.

    Args:
        bins: of confidence, for the calibration error; 15 as in Guo et al.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        self._counts: dict[tuple[int, str, int], _Counts] = {}

    def start(self, row: int, stream: str, experience: int) -> None:
        """Begin an evaluation of an experience; an earlier one in the same row is forgotten."""
        self._counts[row, stream, experience] = _Counts(gaps=np.zeros(self.bins))

    def add(
        self,
        row: int,
        stream: str,
        experience: int,
        confidence: ArrayLike,
        correct: ArrayLike,
        cells: ArrayLike | None = None,
    ) -> None:
        """Add a batch to the evaluation that `start` began.

        Args:
            row: trainings so far.
            stream: its name.
            experience: its number in the stream.
            confidence: probability of the predicted class, shape (N,), between 0 and 1.
            correct: whether each prediction was right, shape (N,), booleans.
            cells: what kind of sample each is, shape (N, k), whole numbers: its task and class, say. Accuracies on two
                streams are matched by it, see `matched_accuracies`. Default: all samples are of one kind.

        Raises:
            ValueError: as `calibration_gaps`; nothing is added then.
        """
        counts, right = self._counts[row, stream, experience], np.asarray(correct)
        counts.gaps = counts.gaps + calibration_gaps(confidence, right, self.bins)
        kinds = [()] * len(right) if cells is None else map(tuple, np.asarray(cells).tolist())
        for cell, is_right in zip(kinds, right.tolist(), strict=True):
            before = counts.cells.get(cell, (0, 0))
            counts.cells[cell] = before[0] + is_right, before[1] + 1

    def streams(self, row: int) -> list[str]:
        """Return the names of the streams that were evaluated in a row, in order of evaluation."""
        return list(dict.fromkeys(stream for r, stream, _ in self._counts if r == row))

    def sizes(self, row: int, stream: str, experiences: Sequence[int]) -> list[int]:
        """Return the number of samples evaluated of each experience."""
        cells = [self._cells(row, stream, [experience]) for experience in experiences]
        return [sum(samples for _, samples in found.values()) for found in cells]

    def accuracy(self, row: int, stream: str, experiences: Sequence[int]) -> float | None:
        """Return the accuracy over all samples of the experiences, percent; None if none was evaluated."""
        cells = self._cells(row, stream, experiences).values()
        return 100 * sum(right for right, _ in cells) / sum(samples for _, samples in cells) if cells else None

    def matched_accuracies(
        self, row: int, stream: str, experiences: Sequence[int], reference: str, reference_experiences: Sequence[int]
    ) -> tuple[float, float] | None:
        """Return the accuracy on a stream, and that on another one over the same cells with the same weights, percent.

        Each cell weighs as much as it has samples in `stream`, on both sides. So the two differ by what the model does
        with the images, not by how many there are of each class.

        Returns:
            None if nothing of `stream` was evaluated, or the reference lacks a cell.
        """
        mine, theirs = self._cells(row, stream, experiences), self._cells(row, reference, reference_experiences)
        if not mine or not mine.keys() <= theirs.keys():
            return None
        total = sum(samples for _, samples in mine.values())

        def weighted(cells: _Cells) -> float:
            shares = (samples * cells[cell][0] / cells[cell][1] for cell, (_, samples) in mine.items())
            return 100 * math.fsum(shares) / total

        return weighted(mine), weighted(theirs)

    def _cells(self, row: int, stream: str, experiences: Sequence[int]) -> _Cells:
        sums: dict[tuple[int, ...], tuple[int, int]] = {}
        for counts in self._evaluated(row, stream, experiences):
            for cell, (right, samples) in counts.cells.items():
                before = sums.get(cell, (0, 0))
                sums[cell] = before[0] + right, before[1] + samples
        return sums

    def calibration_error(self, row: int, stream: str, experiences: Sequence[int]) -> float | None:
        """Return the expected calibration error over all samples, percentage points; None if none was evaluated."""
        counts = self._evaluated(row, stream, experiences)
        if not counts:
            return None
        gaps = np.sum([c.gaps for c in counts], axis=0)
        return float(100 * np.abs(gaps).sum() / sum(self.sizes(row, stream, experiences)))

    def _evaluated(self, row: int, stream: str, experiences: Sequence[int]) -> list[_Counts]:
        found = (self._counts.get((row, stream, experience)) for experience in experiences)
        return [counts for counts in found if counts is not None and counts.cells]
