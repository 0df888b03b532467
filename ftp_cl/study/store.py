"""The results of a plan: runs.parquet has a row for each reported run, tuning.parquet one for each tuning run.

A column stands for a key of a result.json; `setting` and `row` are a plan's.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import polars as pl
from filelock import FileLock

from ftp_cl.runs.files import read_file, replace_files
from ftp_cl.runs.records import RUNS_FILE
from ftp_cl.runs.schema import ConfigError, Objective

TUNING_FILE = "tuning.parquet"
_LOCK_FILE = ".lock"

RUN_TYPES: dict[str, Any] = {
    **dict.fromkeys(("setting", "row", "schema", "benchmark", "method", "model"), pl.String()),
    "seed": pl.Int64(),
    "accuracy_matrix": pl.List(pl.List(pl.Float64())),
    **dict.fromkeys(get_args(Objective), pl.Float64()),
}
"""Of columns that have a type of their own. Every other key is JSON text; a run without it has no text there."""


_KEYS = {RUNS_FILE: ["setting", "row", "seed"], TUNING_FILE: ["setting", "row", "seed", "overrides"]}
_TUNING = {
    **{"setting": pl.String(), "row": pl.String(), "seed": pl.Int64(), "overrides": pl.List(pl.String())},
    **{"average_accuracy": pl.Float64(), "train_seconds": pl.Float64()},
}
_TYPES = {RUNS_FILE: RUN_TYPES, TUNING_FILE: _TUNING}


class Store:
    """The results of one plan.

    A change reads the file, writes the new one beside it and replaces it, under a lock: a kill loses nothing, and
    processes that share the directory may add at the same time.

    Args:
        directory: of the plan; made when the first row is added.

    Raises:
        ValueError: from each method, a file cannot be read, is damaged or holds something else.
        OSError: a file cannot be written; it is then as before.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def runs(self, setting: str | None = None, row: str | None = None, seed: int | None = None) -> list[dict[str, Any]]:
        """Reported runs, by setting, row and seed: the keys of each result.json, and `setting` and `row`."""
        return runs_of_frame(self.frame(RUNS_FILE).filter(_is_of(setting, row, seed)))

    def tuning(self) -> list[dict[str, Any]]:
        """Tuning runs: setting, row, seed, overrides, average accuracy and seconds in training of each."""
        return self.frame(TUNING_FILE).to_dicts()

    def add_run(self, setting: str, row: str, result: Mapping[str, Any]) -> None:
        """Add a reported run; one of the same setting, row and seed is replaced.

        The table of radii per tensor is left out: it is most of a result, and no table of a comparison shows it.
        """
        new = frame_of_runs([{"setting": setting, "row": row, **result, "projection": {}}])
        self._change(RUNS_FILE, lambda old: _united(old, new, RUNS_FILE))

    def add_tuning(self, setting: str, row: str, overrides: Iterable[str], result: Mapping[str, Any]) -> None:
        """Add a tuning run; one of the same setting, row, overrides and seed is replaced."""
        values = {"setting": setting, "row": row, "overrides": list(overrides)}
        new = pl.DataFrame([{key: {**result, **values}[key] for key in _TUNING}], schema=_TUNING)
        self._change(TUNING_FILE, lambda old: _united(old, new, TUNING_FILE))

    def drop(self, setting: str | None, row: str | None) -> int:
        """Remove what belongs to a setting, to a row, or to a row in a setting; returns how many runs that were."""
        chosen = _is_of(setting, row)
        dropped = sum(self.frame(name).filter(chosen).height for name in _KEYS)
        for name in _KEYS:
            self._change(name, lambda old: old.filter(~chosen))
        return dropped

    def merge(self, others: Sequence["Store"]) -> int:
        """Add what other machines ran; returns how many runs were new.

        Raises:
            ConfigError: a run is there already, with other numbers; nothing is then changed.
        """
        found = {name: [other.frame(name) for other in others] for name in _KEYS}
        before = sum(self.frame(name).height for name in _KEYS)
        for name, frames in found.items():
            for frame in frames:
                _refuse_conflicts(self.directory, self.frame(name), frame, name)
        for name, frames in found.items():
            new = pl.concat(frames, how="diagonal")
            self._change(name, lambda old, new=new, name=name: _united(new, old, name))  # type: ignore[misc]
        return sum(self.frame(name).height for name in _KEYS) - before

    def is_empty(self) -> bool:
        """Whether there are no results yet."""
        return not any((self.directory / name).exists() for name in _KEYS)

    def frame(self, name: str) -> pl.DataFrame:
        """The rows of one of the two files, as polars has them."""
        path = self.directory / name
        return read_frame(path, _TYPES[name]) if path.exists() else pl.DataFrame(schema=_TYPES[name])

    def _change(self, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with FileLock(self.directory / _LOCK_FILE):
            for left in self.directory.glob(f".{name}.*.tmp"):  # of a process that was killed as it wrote
                left.unlink(missing_ok=True)
            old = self.frame(name)
            new = change(old)
            if not new.equals(old):
                buffer = io.BytesIO()
                new.write_parquet(buffer, compression="zstd", compression_level=9)
                replace_files({self.directory / name: buffer.getvalue()})


def _is_of(setting: str | None, row: str | None, seed: int | None = None) -> pl.Expr:
    wanted = {"setting": setting, "row": row, "seed": seed}
    return pl.all_horizontal(
        pl.lit(True), *(pl.col(key) == value for key, value in wanted.items() if value is not None)
    )


def _united(old: pl.DataFrame, new: pl.DataFrame, name: str) -> pl.DataFrame:
    """All rows of both; where both have one, the new one."""
    both = pl.concat([old, new], how="diagonal")
    return both.unique(_KEYS[name], keep="last", maintain_order=True).sort(_KEYS[name][:3], maintain_order=True)


def _refuse_conflicts(directory: Path, old: pl.DataFrame, new: pl.DataFrame, name: str) -> None:
    both = old.join(new, on=_KEYS[name], how="inner", suffix=" there")
    numbers = [column for column in ("average_accuracy", "ood_average", "average_forgetting") if column in old.columns]
    other = both.filter(pl.any_horizontal(pl.col(number).ne_missing(pl.col(f"{number} there")) for number in numbers))
    if other.height:
        setting, row, seed = other.select("setting", "row", "seed").row(0)
        raise ConfigError(
            f"{directory / name} has other numbers for {row} in {setting}, seed {seed}: drop one of the two first."
        )


# ---- rows as Parquet has them --------------------------------------------------------------------------------------


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
