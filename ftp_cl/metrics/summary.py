"""The metrics that a run's result file carries, computed in one place from the accuracy matrix and OOD accuracies."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ftp_cl.metrics.accuracy_matrix import (
    AccuracyMatrix,
    FirstRows,
    average_accuracy,
    average_forgetting,
    average_incremental_accuracy,
    backward_transfer,
    learning_accuracy,
)
from ftp_cl.metrics.robustness import ood_average


def summarize(
    accuracy_matrix: AccuracyMatrix, ood: Mapping[str, float] | None = None, first_rows: FirstRows = None
) -> dict[str, Any]:
    """The part of result.json that follows from accuracies; writer and reader of result files both use it.

    Args:
        accuracy_matrix: [R, C], percent; entries above the diagonal may be NaN or None.
        ood: accuracy of each OOD stream, percent; default: none was evaluated.
        first_rows: for each column the row after whose training it had first been trained on, see
            `ftp_cl.metrics.accuracy_matrix`; default: row j, and the matrix is square.

    Returns:
        A dict that JSON can hold, with the keys accuracy_matrix (missing entries None), average_accuracy,
        average_incremental_accuracy, average_forgetting and backward_transfer (None if no experience was trained on
        before the last training), learning_accuracy, ood, ood_average (None without OOD streams), and
        first_rows where they are not the default. Units: percent and percentage points.

    Raises:
        ValueError: as `average_incremental_accuracy`: the matrix is not in percent or misses an entry, say.
    """
    streams = {name: float(accuracy) for name, accuracy in (ood or {}).items()}
    incremental = average_incremental_accuracy(accuracy_matrix, first_rows=first_rows)  # checks all that was seen
    matrix = np.asarray(accuracy_matrix, dtype=np.float64)
    rows, columns = matrix.shape
    first = list(range(rows) if first_rows is None else first_rows)
    several = any(row is not None and row < rows - 1 for row in first)
    return {
        "accuracy_matrix": [[None if math.isnan(entry) else entry for entry in row] for row in matrix.tolist()],
        "average_accuracy": average_accuracy(matrix, first_rows=first),
        "average_incremental_accuracy": incremental,
        "average_forgetting": average_forgetting(matrix, first_rows=first) if several else None,
        "backward_transfer": backward_transfer(matrix, first_rows=first) if several else None,
        "learning_accuracy": learning_accuracy(matrix, first_rows=first),
        "ood": streams,
        "ood_average": ood_average(streams) if streams else None,
        **({} if rows == columns and first == list(range(rows)) else {"first_rows": first}),
    }
