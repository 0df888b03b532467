"""Calibration: whether a confidence of 80 % means that 80 % of such predictions are right."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error (ECE): the gap between confidence and accuracy, weighted over bins of confidence.

    ``ECE = sum_b (|B_b| / N) |accuracy(B_b) - mean confidence(B_b)|``, with bins of equal width ((b-1)/bins, b/bins].

    Args:
        probabilities: either the predicted class probabilities, shape (N, C), or the confidence of each prediction,
            shape (N,). Between 0 and 1: softmax outputs, not logits.
        targets: for probabilities of shape (N, C) the class indices, shape (N,); for confidences whether each
            prediction was right, shape (N,), booleans.
        bins: number of bins; 15 as in Guo et al.

    Returns:
        Percentage points, 0 (perfect) to 100.

    Raises:
        ValueError: shapes that do not fit, no sample, values outside 0 to 1, rows that do not sum to 1, targets that
            are no class indices (or, with confidences, no booleans), or bins < 1.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599.
    """
    gaps = calibration_gaps(probabilities, targets, bins)
    return float(100 * np.abs(gaps).sum() / len(np.asarray(targets)))


def calibration_gaps(probabilities: ArrayLike, targets: ArrayLike, bins: int = 15) -> NDArray[np.float64]:
    """Sum of (1 if right, else 0) minus confidence in each bin: what `expected_calibration_error` is made of.

    Since ``|B_b|`` cancels, ECE is ``100 sum_b |gap_b| / N``. Gaps of batches add up, so that the error over a
    stream needs no predictions to be kept.

    Args:
        probabilities: as `expected_calibration_error`.
        targets: as `expected_calibration_error`.
        bins: number of bins.

    Returns:
        Shape (bins,).

    Raises:
        ValueError: as `expected_calibration_error`.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, but is {bins}")
    confidence, correct = _predictions(np.asarray(probabilities, dtype=np.float64), np.asarray(targets))
    # A confidence of exactly 0 belongs to the first bin, although the bins are open on the left.
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return np.bincount(bin_of, weights=correct - confidence, minlength=bins).astype(np.float64)


def _predictions(
    probabilities: NDArray[np.float64], targets: NDArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence and correctness (0 or 1) of each prediction, both of shape (N,)."""
    if probabilities.ndim not in (1, 2) or targets.shape != probabilities.shape[:1] or not probabilities.size:
        raise ValueError(
            "expected probabilities of shape (N, C) or confidences of shape (N,) and targets of shape (N,), "
            f"but got {probabilities.shape} and {targets.shape}"
        )
    if not np.all((probabilities >= 0) & (probabilities <= 1 + 1e-6)):
        raise ValueError("probabilities must be between 0 and 1; apply softmax to logits first")
    if probabilities.ndim == 1:
        if targets.dtype != np.bool_:
            raise ValueError("with confidences of shape (N,), targets must be booleans: was each prediction right")
        return probabilities, targets.astype(np.float64)
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError("each row of probabilities must sum to 1")
    if not np.issubdtype(targets.dtype, np.integer) or targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise ValueError(f"targets must be class indices from 0 to {probabilities.shape[1] - 1}")
    return probabilities.max(axis=1), (probabilities.argmax(axis=1) == targets).astype(np.float64)
