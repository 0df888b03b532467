"""Results as rows of a Parquet file: a column for each key of a result.json, and the setting and row of a plan."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ftp_cl.runs.files import read_file

RUNS_FILE = "runs.parquet"

_NUMBERS = (
    *("average_accuracy", "average_incremental_accuracy", "average_forgetting", "backward_transfer"),
    *("learning_accuracy", "ood_average", "train_seconds", "step_seconds_median", "peak_memory_mb"),
)

RUN_TYPES: dict[str, Any] = {
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
    rows = [{key: value if key in RUN_TYPES else json.dumps(value) for key, value in run.items()} for run in runs]
    keys = dict.fromkeys([*RUN_TYPES, *(key for row in rows for key in row)])
    return pl.DataFrame(rows, schema={key: RUN_TYPES.get(key, pl.String()) for key in keys})


def runs_of_frame(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The inverse of `frame_of_runs`."""
    return [
        {
            key: value if key in RUN_TYPES else json.loads(value)
            for key, value in row.items()
            if key in RUN_TYPES or value is not None
        }
        for row in frame.iter_rows(named=True)
    ]


def read_frame(path: Path, types: Mapping[str, Any] = RUN_TYPES) -> pl.DataFrame:
    """The rows of a Parquet file.

    Args:
        path: of the file.
        types: of the columns that it must have; every other column is JSON text.

    Raises:
        ValueError: it cannot be read, is damaged, no Parquet file, or one of something else.
    """
    try:
        frame = pl.read_parquet(read_file(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{path}: damaged, or no Parquet file ({reason})") from error
    for name, kind in types.items():
        if frame.schema.get(name) != kind:
            found = frame.schema.get(name, "missing")
            raise ValueError(f"{path}: holds no results of a plan (its column {name} must be {kind}, but is {found})")
    for name in ("setting", "row", "seed"):
        if frame[name].null_count():
            raise ValueError(f"{path}: holds a row without {name}")
    for name in frame.columns:
        if name not in types:
            _refuse_other_than_json(path, frame[name])
    return frame


def _refuse_other_than_json(path: Path, column: pl.Series) -> None:
    try:
        for text in column.unique().drop_nulls():
            json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its column {column.name!r:.80} holds something else than JSON ({error})") from None
