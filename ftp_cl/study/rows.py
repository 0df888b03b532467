"""Results as rows of a Parquet file: a column for each key of a result.json, and the setting and row of a plan."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

RUNS_FILE = "runs.parquet"

_NUMBERS = (
    *("average_accuracy", "average_incremental_accuracy", "average_forgetting", "backward_transfer"),
    *("learning_accuracy", "ood_average", "train_seconds", "step_seconds_median", "peak_memory_mb"),
)

_TYPES: dict[str, Any] = {
    **dict.fromkeys(("setting", "row", "schema", "benchmark", "method", "model"), pl.String()),
    "seed": pl.Int64(),
    "accuracy_matrix": pl.List(pl.List(pl.Float64())),
    **dict.fromkeys(_NUMBERS, pl.Float64()),
}
"""Of columns that have a type of their own. Every other key is JSON text; a run without it has no text there."""


def frame_of_runs(runs: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """One row a run.

    Args:
        runs: the keys of a result.json, and `setting` and `row`.
    """
    rows = [{key: value if key in _TYPES else json.dumps(value) for key, value in run.items()} for run in runs]
    keys = dict.fromkeys([*_TYPES, *(key for row in rows for key in row)])
    return pl.DataFrame(rows, schema={key: _TYPES.get(key, pl.String()) for key in keys})


def runs_of_frame(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The inverse of `frame_of_runs`."""
    return [
        {
            key: value if key in _TYPES else json.loads(value)
            for key, value in row.items()
            if key in _TYPES or value is not None
        }
        for row in frame.iter_rows(named=True)
    ]


def read_frame(path: Path) -> pl.DataFrame:
    """The rows of a Parquet file.

    Raises:
        ValueError: it is damaged, or no Parquet file.
        OSError: it cannot be read.
    """
    try:
        return pl.read_parquet(path.read_bytes())
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0].rstrip('.')}.") from error
