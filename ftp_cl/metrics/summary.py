"""The metrics that a run's result file carries, computed in one place from the accuracy matrix and OOD accuracies."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ftp_cl.metrics.accuracy_matrix import (
    AccuracyMatrix,
    average_accuracy,
    average_forgetting,
    average_incremental_accuracy,
    backward_transfer,
    learning_accuracy,
)
from ftp_cl.metrics.robustness import ood_average


def summarize(accuracy_matrix: AccuracyMatrix, ood: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The part of result.json that follows from accuracies; writer and reader of result files both use it.

    Args:
        accuracy_matrix: T x T, percent; entries above the diagonal may be NaN or None.
        ood: accuracy of each OOD stream, percent; default: none was evaluated.

    Returns:
        A dict that JSON can hold, with the keys accuracy_matrix (missing entries None), average_accuracy,
        average_incremental_accuracy, average_forgetting and backward_transfer (None if T = 1), learning_accuracy, ood,
        ood_average (None without OOD streams). Units: percent and percentage points.

    Raises:
        ValueError: the matrix is not square or not in percent, or misses an entry on or below the diagonal.
    """
    streams = {name: float(accuracy) for name, accuracy in (ood or {}).items()}
    incremental = average_incremental_accuracy(accuracy_matrix)  # checks the whole lower triangle
    matrix = np.asarray(accuracy_matrix, dtype=np.float64)
    several = len(matrix) > 1
    return {
        "accuracy_matrix": [[None if math.isnan(entry) else entry for entry in row] for row in matrix.tolist()],
        "average_accuracy": average_accuracy(matrix),
        "average_incremental_accuracy": incremental,
        "average_forgetting": average_forgetting(matrix) if several else None,
        "backward_transfer": backward_transfer(matrix) if several else None,
        "learning_accuracy": learning_accuracy(matrix),
        "ood": streams,
        "ood_average": ood_average(streams) if streams else None,
    }
