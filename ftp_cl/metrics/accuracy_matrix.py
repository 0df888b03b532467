"""Metrics of continual learning as pure functions of the accuracy matrix.

The accuracy matrix is square, T x T, in percent: entry (i, j) is the accuracy on the test set of experience j after
training on experience i (both counted from 1 in the formulas below). Entries above the diagonal, experiences not
trained on yet, may be NaN or None where they were not evaluated; each function asks only for the entries its formula
reads. Differences of accuracies are in percentage points.

``sizes`` weighs experiences by their number of test samples (or any positive weights). Without it every experience
counts the same, which is what the cited papers do; on experiences of unequal size only the weighted mean is the
accuracy over all test samples.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
AccuracyMatrix: TypeAlias = ArrayLike | Sequence[Sequence[float | None]]

# Which entries a formula reads: (row indices, column indices, index of the last row) -> mask of the matrix's shape.
Needed: TypeAlias = Callable[[NDArray[np.intp], NDArray[np.intp], int], NDArray[np.bool_]]

# Accuracies that were computed in float32 may exceed 100 by rounding.
_ROUNDING = 1e-4


def average_accuracy(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Mean of the last row: (1/T) sum_j a_Tj.

    Args:
        accuracy_matrix: T x T, percent. Reads the last row.
        sizes: weight of each experience, shape (T,); default: all the same.

    Returns:
        Percent.

    Raises:
        ValueError: the matrix is not square, misses an entry that is read, or is not in percent; sizes do not fit.

    Source:
        ACC of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i == last)
    return _mean(matrix[-1], _weights(sizes, len(matrix)))


def accuracy_after_each_experience(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> FloatArray:
    """Mean accuracy over the experiences seen so far, after each experience: (1/i) sum_{j<=i} a_ij.

    Args:
        accuracy_matrix: T x T, percent. Reads the lower triangle and the diagonal.
        sizes: weight of each experience, shape (T,); default: all the same.

    Returns:
        Percent, shape (T,).

    Raises:
        ValueError: as `average_accuracy`.
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i >= j)
    weights = _weights(sizes, len(matrix))
    return np.array([_mean(row[: i + 1], weights[: i + 1]) for i, row in enumerate(matrix)])


def average_incremental_accuracy(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Mean of `accuracy_after_each_experience` over the T experiences.

    Args:
        accuracy_matrix: T x T, percent. Reads the lower triangle and the diagonal.
        sizes: weight of each experience within a row, shape (T,); default: all the same. Rows always count the same.

    Returns:
        Percent.

    Raises:
        ValueError: as `average_accuracy`.

    Source:
        Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017,
        arXiv 1611.07725.
    """
    return float(accuracy_after_each_experience(accuracy_matrix, sizes).mean())


def learning_accuracy(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Mean of the diagonal: how well each experience was learned just after it was trained on.

    Args:
        accuracy_matrix: T x T, percent. Reads the diagonal.
        sizes: weight of each experience, shape (T,); default: all the same.

    Returns:
        Percent.

    Raises:
        ValueError: as `average_accuracy`.

    Source:
        LA of Riemer et al., "Learning to Learn without Forgetting by Maximizing Transfer and Minimizing Interference",
        ICLR 2019, arXiv 1810.11910.
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i == j)
    return _mean(np.diagonal(matrix), _weights(sizes, len(matrix)))


def forgetting_per_experience(accuracy_matrix: AccuracyMatrix) -> FloatArray:
    """For each experience but the last: its best accuracy before the end minus its accuracy at the end.

    f_j = max_{i<T} a_ij - a_Tj for j < T. The maximum runs over every row before the last, as in the paper, so over
    entries above the diagonal too where they were evaluated (accuracy before an experience was trained on); missing
    ones are left out. It is negative where the last experience raised the accuracy above all earlier values.

    Args:
        accuracy_matrix: T x T with T >= 2, percent. Reads the lower triangle and the diagonal.

    Returns:
        Percentage points, shape (T - 1,).

    Raises:
        ValueError: as `average_accuracy`; or T = 1, where nothing can be forgotten yet.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (f_j^k, k = T).
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i >= j, at_least=2, name="forgetting")
    return np.nanmax(matrix[:-1, :-1], axis=0) - matrix[-1, :-1]


def average_forgetting(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Maximum-based forgetting: mean of `forgetting_per_experience`.

    Code derived from "Learning to Prompt" (L2P) lets the maximum include the last row, so it never goes below 0;
    here, as in the paper, it does not.

    Args:
        accuracy_matrix: T x T with T >= 2, percent. Reads the lower triangle and the diagonal.
        sizes: weight of each experience, shape (T,), of which the first T - 1 are used; default: all the same.

    Returns:
        Percentage points; lower is better.

    Raises:
        ValueError: as `forgetting_per_experience`; sizes do not fit.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (F_k, k = T).
    """
    forgetting = forgetting_per_experience(accuracy_matrix)
    return _mean(forgetting, _weights(sizes, len(forgetting) + 1)[:-1])


def stepwise_forgetting(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Step-wise forgetting of rehearsal-free work: the mean loss of accuracy from one experience to the next.

    (1/(T-1)) sum_{i=2..T} (1/(i-1)) sum_{j<i} (a_{i-1,j} - a_ij).

    It counts a loss when it happens and a later recovery as negative forgetting, where the maximum-based definition
    looks at the end of the stream only. For T = 2 both are the same; for more they differ, often by a factor of
    several, so numbers under the two definitions cannot be compared.

    Args:
        accuracy_matrix: T x T with T >= 2, percent. Reads the lower triangle and the diagonal.
        sizes: weight of each experience within a step, shape (T,); default: all the same. Steps always count the same.

    Returns:
        Percentage points; lower is better.

    Raises:
        ValueError: as `forgetting_per_experience`; sizes do not fit.

    Source:
        Released code of Smith et al., "CODA-Prompt: COntinual Decomposed Attention-based Prompting for Rehearsal-Free
        Continual Learning", CVPR 2023, arXiv 2211.13218: function calc_forgetting in utils/calc_forgetting.py of the
        repository GT-RIPL/CODA-Prompt. It assumes experiences of equal size; ``sizes`` extends it to unequal ones.
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i >= j, at_least=2, name="step-wise forgetting")
    weights = _weights(sizes, len(matrix))
    steps = [_mean(matrix[i - 1, :i] - matrix[i, :i], weights[:i]) for i in range(1, len(matrix))]
    return float(np.mean(steps))


def backward_transfer(accuracy_matrix: AccuracyMatrix, sizes: ArrayLike | None = None) -> float:
    """Backward transfer: (1/(T-1)) sum_{j<T} (a_Tj - a_jj); negative when experiences are forgotten.

    Args:
        accuracy_matrix: T x T with T >= 2, percent. Reads the diagonal and the last row.
        sizes: weight of each experience, shape (T,), of which the first T - 1 are used; default: all the same.

    Returns:
        Percentage points; higher is better.

    Raises:
        ValueError: as `average_accuracy`; or T = 1.

    Source:
        BWT of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    matrix = _read(
        accuracy_matrix, needed=lambda i, j, last: (i == j) | (i == last), at_least=2, name="backward transfer"
    )
    change = matrix[-1, :-1] - np.diagonal(matrix)[:-1]
    return _mean(change, _weights(sizes, len(matrix))[:-1])


def forward_transfer(accuracy_matrix: AccuracyMatrix, baseline: ArrayLike, sizes: ArrayLike | None = None) -> float:
    """Forward transfer: (1/(T-1)) sum_{j>1} (a_{j-1,j} - b_j): what earlier experiences teach about an unseen one.

    In class-incremental learning a_{j-1,j} is 0 as a rule, since the classes of experience j are unknown: there the
    number says little.

    Args:
        accuracy_matrix: T x T with T >= 2, percent. Reads the entries just above the diagonal.
        baseline: b, accuracy on each experience before any training, percent, shape (T,). The first is not read.
        sizes: weight of each experience, shape (T,), of which the last T - 1 are used; default: all the same.

    Returns:
        Percentage points; higher is better.

    Raises:
        ValueError: as `average_accuracy`; T = 1; or the baseline does not fit.

    Source:
        FWT of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, arXiv 1706.08840.
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: j == i + 1, at_least=2, name="forward transfer")
    before_training = _percent_vector(baseline, len(matrix), "baseline", first_read=1)
    gain = np.diagonal(matrix, offset=1) - before_training[1:]
    return _mean(gain, _weights(sizes, len(matrix))[1:])


def intransigence_per_experience(accuracy_matrix: AccuracyMatrix, joint: ArrayLike) -> FloatArray:
    """I_k = a*_k - a_kk: how far learning experience k fell short of a model trained on experiences 1 to k jointly.

    Args:
        accuracy_matrix: T x T, percent. Reads the diagonal.
        joint: a*, shape (T,), percent: entry k is the accuracy on experience k of the reference model that was trained
            on the data of experiences 1 to k together.

    Returns:
        Percentage points, shape (T,); lower is better, negative where learning in sequence beat the reference.

    Raises:
        ValueError: as `average_accuracy`; or the reference does not fit.

    Source:
        Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018, arXiv 1801.10112 (I_k).
    """
    matrix = _read(accuracy_matrix, needed=lambda i, j, last: i == j)
    return _percent_vector(joint, len(matrix), "joint") - np.diagonal(matrix)


def intransigence(accuracy_matrix: AccuracyMatrix, joint: ArrayLike, sizes: ArrayLike | None = None) -> float:
    """Mean of `intransigence_per_experience`; Chaudhry et al. report its last entry, I_T.

    Args:
        accuracy_matrix: T x T, percent. Reads the diagonal.
        joint: accuracy of the jointly trained reference on each experience, percent, shape (T,).
        sizes: weight of each experience, shape (T,); default: all the same.

    Returns:
        Percentage points; lower is better.

    Raises:
        ValueError: as `intransigence_per_experience`; sizes do not fit.
    """
    shortfall = intransigence_per_experience(accuracy_matrix, joint)
    return _mean(shortfall, _weights(sizes, len(shortfall)))


def _read(accuracy_matrix: AccuracyMatrix, needed: Needed, at_least: int = 1, name: str = "this metric") -> FloatArray:
    """Check the matrix and return it as floats; entries that are needed must be there."""
    try:
        matrix = np.asarray(accuracy_matrix, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"the accuracy matrix must be T rows of T numbers: {error}") from None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"the accuracy matrix must be square, T rows of T numbers, but has shape {matrix.shape}")
    if len(matrix) < at_least:
        raise ValueError(f"{name} needs at least {at_least} experiences, but the accuracy matrix has {len(matrix)}")
    outside = np.argwhere((matrix < 0) | (matrix > 100 + _ROUNDING))
    if len(outside):
        i, j = outside[0]
        raise ValueError(f"accuracies are percent, 0 to 100, but row {i + 1}, column {j + 1} is {matrix[i, j]:g}")
    index = np.indices(matrix.shape)
    missing = np.argwhere(np.isnan(matrix) & needed(index[0], index[1], len(matrix) - 1))
    if len(missing):
        i, j = missing[0]
        raise ValueError(
            f"the accuracy on experience {j + 1} after training on experience {i + 1} is missing, and {name} needs it"
        )
    return matrix


def _percent_vector(values: ArrayLike, length: int, name: str, first_read: int = 0) -> FloatArray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (length,):
        raise ValueError(f"{name} must have one accuracy per experience, {length}, but has shape {vector.shape}")
    read = vector[first_read:]
    if not np.all((read >= 0) & (read <= 100 + _ROUNDING)):
        raise ValueError(f"{name} must hold percentages, 0 to 100, but is {vector.tolist()}")
    return vector


def _weights(sizes: ArrayLike | None, length: int) -> FloatArray:
    if sizes is None:
        return np.ones(length)
    weights = np.asarray(sizes, dtype=np.float64)
    if weights.shape != (length,):
        raise ValueError(f"sizes must have one entry per experience, {length}, but has shape {weights.shape}")
    if not np.all(np.isfinite(weights) & (weights > 0)):
        raise ValueError(f"sizes must be positive numbers, but are {weights.tolist()}")
    return weights


def _mean(values: FloatArray, weights: FloatArray) -> float:
    return float(np.average(values, weights=weights))
