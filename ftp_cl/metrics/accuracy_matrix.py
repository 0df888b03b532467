"""Metrics of continual learning as pure functions of the accuracy matrix.

Entry (i, j) of the accuracy matrix is the accuracy, percent, on test experience j after the i-th training (both counted
from 1 in the formulas below). Entries may be NaN or None where they were not evaluated; each function asks only for
the entries its formula reads. Differences of accuracies are in percentage points.

As a rule T experiences are trained on once each, in order: the matrix is square, and the formulas are those of the
papers. ``first_rows`` tells of any other stream: for each column the row, counted from 0, after whose training that
experience had been trained on for the first time; None if it never was. The matrix then has a row for each training,
R in all, and a column for each test experience; f_j is the first row of column j. Training on experiences 0, 1, 2, 0
gives first_rows [0, 1, 2] and four rows; the order 2, 1, 0 gives [2, 1, 0]; one test experience for all of training
gives [0]. Columns that were never trained on count nowhere, and the sums over j run over the others.

``sizes`` weighs columns by their number of test samples (or any positive weights). Without it every column counts the
same, which is what the cited papers do; on experiences of unequal size only the weighted mean is the accuracy over all
test samples. All formulas are in this one file because they share this notation and one check of what they read.
"""

import inspect
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
AccuracyMatrix: TypeAlias = ArrayLike | Sequence[Sequence[float | None]]
FirstRows: TypeAlias = Sequence[int | None] | None

# Which entries a formula reads: (index of each row, [R, 1]; first row of each column, [C]; last row) -> mask [R, C].
Needed: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp], int], NDArray[np.bool_]]

_SEEN: Needed = lambda i, f, last: i >= f  # noqa: E731
_FIRST: Needed = lambda i, f, last: i == f  # noqa: E731

# Accuracies that were computed in float32 may exceed 100 by rounding.
_ROUNDING = 1e-4

Function = TypeVar("Function", bound=Callable[..., Any])

_SEEN_ROWS = "row f_j of each column and those below"
_ARGUMENTS = {
    "accuracy_matrix": "[R, C], percent. Reads {reads}.",
    "baseline": "b, accuracy on each experience before any training, percent, shape (C,). Only the columns with\n"
    "        f_j > 1 are read.",
    "joint": "a*, percent, shape (C,): entry k is the accuracy on experience k of a reference model that was trained\n"
    "        on the data of all experiences up to and with k together.",
    "sizes": "weight of each column, shape (C,), of which those are used that a mean is over; default: all the same.",
    "first_rows": "of each column, see the module; default: row j, and the matrix is square.",
}
_REFUSED = """Raises:
    ValueError: the matrix is not in percent, misses an entry that is read, or is not square and there are no
        first_rows; or another argument does not fit it."""


def _metric(reads: str, returns: str) -> Callable[[Function], Function]:
    """Let the documentation of a metric tell what all have in common."""

    def decorate(function: Function) -> Function:
        described = [f"    {name}: {_ARGUMENTS[name]}" for name in inspect.signature(function).parameters]
        text, *source = (inspect.getdoc(function) or "").partition("\n\nSource:")
        parts = [text, "\n".join(["Args:", *described]).format(reads=reads), f"Returns:\n    {returns}", _REFUSED]
        function.__doc__ = "\n\n".join(parts) + "".join(source)
        return function

    return decorate


@_metric("the last row", "Percent.")
def average_accuracy(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Mean of the last row: (1/T) sum_j a_Tj.

    Source:
        ACC of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=lambda i, f, last: (i == last) & (f <= last))
    return _mean(matrix[-1], _weights(sizes, first < len(matrix)))


@_metric(_SEEN_ROWS, "Percent, shape (R,).")
def accuracy_after_each_experience(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> FloatArray:
    """Mean accuracy over the experiences seen so far, after each training: (1/i) sum_{j<=i} a_ij.

    With ``first_rows`` the sum runs over f_j <= i; a row before any of the columns was trained on is NaN.
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=_SEEN)
    return np.array([_mean(row, _weights(sizes, first <= i)) for i, row in enumerate(matrix)])


@_metric(_SEEN_ROWS, "Percent.")
def average_incremental_accuracy(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Mean of `accuracy_after_each_experience` over the trainings, which count the same whatever ``sizes`` says.

    Source:
        Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, arXiv 1611.07725.
    """
    return float(np.nanmean(accuracy_after_each_experience(accuracy_matrix, sizes, first_rows)))


@_metric("row f_j of each column", "Percent.")
def learning_accuracy(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Mean of the diagonal, (1/T) sum_j a_jj: how well each experience was learned just after it was trained on.

    With ``first_rows`` just after it was first trained on: a_{f_j, j}.

    Source:
        LA of Riemer et al., "Learning to Learn without Forgetting by Maximizing Transfer and Minimizing Interference",
        ICLR 2019, arXiv 1810.11910.
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=_FIRST)
    return _mean(_in_rows(matrix, first), _weights(sizes, first < len(matrix)))


@_metric(_SEEN_ROWS, "Percentage points, one for each column with f_j < R, in order: shape (T - 1,).")
def forgetting_per_experience(accuracy_matrix: AccuracyMatrix, first_rows: FirstRows = None) -> FloatArray:
    """For each experience but the last: its best accuracy before the end minus its accuracy at the end.

    max_{i<T} a_ij - a_Tj for j < T; with ``first_rows`` max_{i<R} a_ij - a_Rj for f_j < R, the experiences that were
    trained on before the last training. The maximum runs over every row before the last, as in the paper, so over
    entries above the diagonal too where they were evaluated (accuracy before an experience was trained on); missing
    ones are left out. It is negative where the last training raised the accuracy above all earlier values.
    One experience (T = 1) is refused: nothing can be forgotten yet.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (f_j^k, k = T).
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=_SEEN, name="forgetting", before_last=True)
    old = matrix[:, first < len(matrix) - 1]
    return np.nanmax(old[:-1], axis=0) - old[-1]


@_metric(_SEEN_ROWS, "Percentage points; lower is better.")
def average_forgetting(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Maximum-based forgetting: mean of `forgetting_per_experience`.

    Code derived from "Learning to Prompt" (L2P) lets the maximum include the last row, so it never goes below 0;
    here, as in the paper, it does not.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (F_k, k = T).
    """
    forgetting = forgetting_per_experience(accuracy_matrix, first_rows)
    matrix, first = _read(accuracy_matrix, first_rows, needed=_SEEN)
    old = first < len(matrix) - 1
    return _mean(forgetting, _weights(sizes, old)[old])


@_metric(_SEEN_ROWS, "Percentage points; lower is better.")
def stepwise_forgetting(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Step-wise forgetting of rehearsal-free work: the mean loss of accuracy from one training to the next.

    (1/(T-1)) sum_{i=2..T} (1/(i-1)) sum_{j<i} (a_{i-1,j} - a_ij); with ``first_rows`` the inner mean runs over f_j < i.

    It counts a loss when it happens and a later recovery as negative forgetting, where the maximum-based definition
    looks at the end of the stream only. For T = 2 both are the same; for more they differ, often by a factor of
    several, so numbers under the two definitions cannot be compared. Steps count the same whatever ``sizes`` says.

    Source:
        Released code of Smith et al., "CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free
        Continual Learning", CVPR 2023, arXiv 2211.13218: function calc_forgetting in utils/calc_forgetting.py of the
        repository GT-RIPL/CODA-Prompt. It assumes experiences of equal size; ``sizes`` extends it to unequal ones.
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=_SEEN, name="step-wise forgetting", before_last=True)
    rows = range(1, len(matrix))
    return float(np.nanmean([_mean(matrix[i - 1] - matrix[i], _weights(sizes, first < i)) for i in rows]))


@_metric("row f_j of each column and the last", "Percentage points; higher is better.")
def backward_transfer(
    accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Backward transfer: (1/(T-1)) sum_{j<T} (a_Tj - a_jj); negative when experiences are forgotten.

    With ``first_rows`` the mean of a_Rj - a_{f_j, j} over f_j < R: what later trainings did to an experience.

    Source:
        BWT of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    needed: Needed = lambda i, f, last: (i == f) | ((i == last) & (f <= last))  # noqa: E731
    matrix, first = _read(accuracy_matrix, first_rows, needed, name="backward transfer", before_last=True)
    return _mean(matrix[-1] - _in_rows(matrix, first), _weights(sizes, first < len(matrix) - 1))


@_metric("the row before f_j of each column", "Percentage points; higher is better.")
def forward_transfer(
    accuracy_matrix: AccuracyMatrix, baseline: ArrayLike, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Forward transfer: (1/(T-1)) sum_{j>1} (a_{j-1,j} - b_j): what earlier experiences teach about an unseen one.

    With ``first_rows`` the mean of a_{f_j - 1, j} - b_j over the columns with f_j > 1.

    In class-incremental learning a_{j-1,j} is 0 as a rule, since the classes of experience j are unknown: there the
    number says little.

    Source:
        FWT of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    matrix, first = _read(
        accuracy_matrix, first_rows, needed=lambda i, f, last: (i == f - 1) & (f <= last), name="forward transfer"
    )
    later = (first > 0) & (first < len(matrix))
    if not later.any():
        raise ValueError("forward transfer needs at least 2 experiences, one first trained on after the first training")
    before_training = _percent_vector(baseline, later, "baseline")
    return _mean(_in_rows(matrix, first - 1) - before_training, _weights(sizes, later))


@_metric("row f_k of each column", "Percentage points, one for each column that was trained on, in order: shape (T,).")
def intransigence_per_experience(
    accuracy_matrix: AccuracyMatrix, joint: ArrayLike, first_rows: FirstRows = None
) -> FloatArray:
    """I_k = a*_k - a_kk: how far learning experience k fell short of a model trained on experiences 1 to k jointly.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (I_k).
    """
    matrix, first = _read(accuracy_matrix, first_rows, needed=_FIRST)
    trained = first < len(matrix)
    return (_percent_vector(joint, trained, "joint") - _in_rows(matrix, first))[trained]


@_metric("row f_k of each column", "Percentage points; lower is better.")
def intransigence(
    accuracy_matrix: AccuracyMatrix, joint: ArrayLike, sizes: ArrayLike | None = None, first_rows: FirstRows = None
) -> float:
    """Mean of `intransigence_per_experience`; Chaudhry et al. report its last entry, I_T."""
    shortfall = intransigence_per_experience(accuracy_matrix, joint, first_rows)
    matrix, first = _read(accuracy_matrix, first_rows, needed=_FIRST)
    trained = first < len(matrix)
    return _mean(shortfall, _weights(sizes, trained)[trained])


def _read(
    accuracy_matrix: AccuracyMatrix,
    first_rows: FirstRows,
    needed: Needed,
    name: str = "this metric",
    before_last: bool = False,
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Check the matrix; return it as floats, and the first row of each column (R for those never trained on).

    Args:
        accuracy_matrix: as the functions above.
        first_rows: likewise.
        needed: entries that must be there.
        name: of the metric, for errors.
        before_last: whether it needs an experience that was trained on before the last training.
    """
    try:
        matrix = np.asarray(accuracy_matrix, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"the accuracy matrix must be T rows of T numbers: {error}") from None
    if matrix.ndim != 2 or matrix.size == 0 or (first_rows is None and matrix.shape[0] != matrix.shape[1]):
        form = "square, T rows of T numbers (or give first_rows)" if first_rows is None else "rows of numbers"
        raise ValueError(f"the accuracy matrix must be {form}, but has shape {matrix.shape}")
    first = _checked_first_rows(range(len(matrix)) if first_rows is None else first_rows, matrix.shape)
    if before_last and not np.any(first < len(matrix) - 1):
        raise ValueError(
            f"{name} needs at least 2 experiences, one of them trained on before the last training, "
            f"but the accuracy matrix has {len(matrix)} rows"
        )
    outside = np.argwhere((matrix < 0) | (matrix > 100 + _ROUNDING))
    if len(outside):
        i, j = outside[0]
        raise ValueError(f"accuracies are percent, 0 to 100, but row {i + 1}, column {j + 1} is {matrix[i, j]:g}")
    missing = np.argwhere(np.isnan(matrix) & needed(np.arange(len(matrix))[:, None], first, len(matrix) - 1))
    if len(missing):
        i, j = missing[0]
        training = f"training on experience {i + 1}" if first_rows is None else f"training {i + 1}"
        raise ValueError(f"the accuracy on experience {j + 1} after {training} is missing, and {name} needs it")
    return matrix, first


def _checked_first_rows(first_rows: Sequence[int | None], shape: tuple[int, int]) -> NDArray[np.intp]:
    rows, columns = shape
    known = [row for row in first_rows if row is not None]
    if len(first_rows) != columns or not all(isinstance(row, Integral) and 0 <= row < rows for row in known):
        raise ValueError(
            f"first_rows must have a row from 0 to {rows - 1} or None for each of the {columns} columns, but is "
            f"{list(first_rows)}"
        )
    if not known:
        raise ValueError("none of the test experiences was trained on")
    return np.array([rows if row is None else row for row in first_rows], dtype=np.intp)


def _in_rows(matrix: FloatArray, rows: NDArray[np.intp]) -> FloatArray:
    """The entry of each column in its row; NaN where it has none."""
    inside = (rows >= 0) & (rows < len(matrix))
    return np.where(inside, matrix[np.where(inside, rows, 0), np.arange(len(rows))], np.nan)


def _percent_vector(values: ArrayLike, read: NDArray[np.bool_], name: str) -> FloatArray:
    """Values of the columns; those that are read must be percentages."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != read.shape:
        raise ValueError(f"{name} must have one accuracy per experience, {len(read)}, but has shape {vector.shape}")
    if not np.all((vector[read] >= 0) & (vector[read] <= 100 + _ROUNDING)):
        raise ValueError(f"{name} must hold percentages, 0 to 100, but is {vector.tolist()}")
    return vector


def _weights(sizes: ArrayLike | None, counted: NDArray[np.bool_]) -> FloatArray:
    """The weight of each column; 0 for those that do not count."""
    if sizes is None:
        return counted.astype(np.float64)
    weights = np.asarray(sizes, dtype=np.float64)
    if weights.shape != counted.shape:
        raise ValueError(f"sizes must have one entry per experience, {len(counted)}, but has shape {weights.shape}")
    if not np.all(np.isfinite(weights[counted]) & (weights[counted] > 0)):
        raise ValueError(f"sizes must be positive numbers, but are {weights.tolist()}")
    return np.where(counted, weights, 0.0)


def _mean(values: FloatArray, weights: FloatArray) -> float:
    counted = weights > 0
    return float(np.average(values[counted], weights=weights[counted])) if counted.any() else float("nan")
