"""Reads the result files of runs, and refuses what is damaged, foreign or contradicts itself."""

import json
import os
import re
import reprlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, ValidationError

from ftp_cl.metrics import accuracy_after_each_experience, forgetting_per_experience, relative_robustness, summarize
from ftp_cl.runs.files import open_file
from ftp_cl.runs.records import (
    RESULT_FILE,
    RESULT_SCHEMA,
    RUNS_FILE,
    RunResult,
    first_problem,
    projection_after_each_experience,
)
from ftp_cl.runs.status import LeftOut, directories
from ftp_cl.runs.text import printable

_CORRUPTED = re.compile(r"ood_(\w+)_(\d)")

# Summary numbers may have been rounded to two decimals; a larger difference means that the file was altered.
_AGREEMENT = 0.01


class ReportError(ValueError):
    """A report cannot be made; the message is one sentence that names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Result(RunResult):
    """One run: what its result.json tells, checked, with NaN where the accuracy matrix has null.

    Attributes:
        path: the result.json that it was read from; of a row of a plan the file, setting, row and seed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    path: Path
    accuracy_matrix: NDArray[np.float64]  # type: ignore[assignment]
    first_rows: list[int | None]
    ood_reference: dict[str, float | None]

    @property
    def experiences(self) -> int:
        """T, the number of experiences trained on, one after the other."""
        return len(self.accuracy_matrix)

    @cached_property
    def corruptions(self) -> dict[str, tuple[str, int]]:
        """{OOD stream of corrupted images: (corruption, severity)}, as the benchmark says it.

        Older results say it in the streams' names only: ood_fog_3.
        """
        found: dict[str, tuple[str, int]] = {}
        recorded = self.data.get("ood")
        for stream in self.ood:
            match recorded.get(stream) if isinstance(recorded, dict) else None:
                case {"corruption": str(corruption), "severity": int(severity)}:
                    found[stream] = printable(corruption), severity
                case None | {"corrupted": _}:
                    if named := _CORRUPTED.fullmatch(stream):
                        found[stream] = named[1], int(named[2])
        return found

    @property
    def relative_robustness(self) -> float | None:
        """OOD average over the mean of its references; None without OOD streams, at 0, or where one is not known."""
        references = [reference for reference in self.ood_reference.values() if reference is not None]
        if self.ood_average is None or len(references) < len(self.ood) or not any(references):
            return None
        return relative_robustness(self.ood_average, float(np.mean(references)))

    @property
    def old_experiences(self) -> NDArray[np.intp]:
        """The test experiences that were trained on before the last training, those of `forgetting_per_experience`."""
        before_last = [row is not None and row < self.experiences - 1 for row in self.first_rows]
        return np.flatnonzero(before_last)

    @cached_property
    def radii_after_each_experience(self) -> list[dict[str, float]]:
        """Radius of every projected tensor, one dict per experience; empty if metrics.jsonl does not tell."""
        return projection_after_each_experience(self.path.parent, "radius")

    @cached_property
    def distances_after_each_experience(self) -> list[dict[str, float]]:
        """Mean distance of the rows of every projected tensor from the anchor, likewise."""
        return projection_after_each_experience(self.path.parent, "mean_distance")

    def accuracy_after_each_experience(self) -> NDArray[np.float64]:
        """Average accuracy on the experiences seen so far, percent, shape (T,)."""
        return accuracy_after_each_experience(self.accuracy_matrix, first_rows=self.first_rows)

    def forgetting_per_experience(self) -> NDArray[np.float64]:
        """Forgetting of `old_experiences`, percentage points; needs one at least."""
        return forgetting_per_experience(self.accuracy_matrix, self.first_rows)


def load_results(dirs: Iterable[str | os.PathLike[str]]) -> list[Result]:
    """Read every result under the given directories, or none: `find_results` reads what can be read.

    Args:
        dirs: directories, searched recursively, or such files themselves. One that is reached twice counts once.

    Returns:
        At least one result, in the order of their paths.

    Raises:
        ReportError: as `find_results`, or one file or directory cannot be read.
    """
    results, left_out = find_results(dirs)
    if left_out:
        raise ReportError(str(left_out[0]))
    return results


def find_results(dirs: Iterable[str | os.PathLike[str]]) -> tuple[list[Result], list[LeftOut]]:
    """Read every result.json, and every runs.parquet of a plan, under the given directories that can be read.

    Args:
        dirs: directories, searched recursively and through links, or such files themselves. One that is reached twice
            counts once.

    Returns:
        At least one result, in the order of their paths; and what was left out: results that are damaged, of another
        schema or contradict themselves (their summary numbers do not follow from their accuracy matrix), and
        directories that cannot be looked into.

    Raises:
        ReportError: a directory does not exist, or there is no result at all.
    """
    places = [Path(place) for place in dirs]
    results: list[Result] = []
    left_out: list[LeftOut] = []
    paths = {found.resolve(): found for place in places for found in _result_files(place, left_out)}
    for resolved in sorted(paths):
        path = paths[resolved]
        try:
            results += _read(path)
        except ValueError as error:
            left_out.append(LeftOut(path, str(error).removeprefix(printable(f"{path}: "))))
    if not results and not left_out:
        raise ReportError(f"no {RESULT_FILE} or {RUNS_FILE} under {', '.join(map(str, places)) or 'an empty list'}")
    if not results:
        more = f" (and {len(left_out) - 1} more cannot be read)" if len(left_out) > 1 else ""
        raise ReportError(f"{left_out[0]}{more}")
    return results, list(dict.fromkeys(left_out))


def _read(path: Path) -> list[Result]:
    """The result of a run, or those of a plan."""
    if path.suffix == ".parquet":
        from ftp_cl.study.store import read_frame, runs_of_frame  # polars, which a run's own table does without

        return results_of_rows(path, runs_of_frame(read_frame(path)))
    return [_result(path, _parse(path))]


def results_of_rows(path: Path, rows: Iterable[dict[str, Any]]) -> list[Result]:
    """Check the rows of a plan's file. Settings are told apart in the benchmark's name.

    Raises:
        ReportError: as `load_results`, naming setting, row and seed.
    """
    results = []
    for row in rows:
        place = path / row["setting"] / row["row"] / f"seed{row['seed']}"
        results.append(_result(place, {**row, "benchmark": f"{row['benchmark']}, {row['setting']}"}))
    return results


def _result(path: Path, data: dict[str, Any]) -> Result:
    """Check what a result holds.

    Raises:
        ReportError: it is no result of this schema, or contradicts itself.
    """
    if data.get("schema") != RESULT_SCHEMA:
        raise ReportError(
            f"{path}: the schema is {reprlib.repr(data.get('schema'))}, but this version reads {RESULT_SCHEMA!r}"
        )
    try:
        values = dict(RunResult.model_validate(data))
    except ValidationError as error:
        raise ReportError(f"{path}: {first_problem(error)}") from None
    _check_summary(path, values)
    return Result.model_construct(path=path, **values)


def _result_files(place: Path, left_out: list[LeftOut]) -> list[Path]:
    if place.is_dir():
        known = (RESULT_FILE, RUNS_FILE)
        return [folder / name for folder, names in directories(place, left_out) for name in known if name in names]
    if not os.path.lexists(place):
        raise ReportError(f"{place}: no such directory")
    return [place]


def _parse(path: Path) -> dict[str, Any]:
    try:
        with open_file(path) as file:
            data = json.loads(file.read().decode(), parse_constant=_refuse_constant)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise ReportError(f"{path}: not a result file (nested too deeply)") from None
    except ValueError as error:  # truncated or other JSON errors, and bytes that are not UTF-8
        raise ReportError(f"{path}: damaged or truncated, not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise ReportError(f"{path}: not a result file (a JSON object was expected)")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _check_summary(path: Path, values: dict[str, Any]) -> None:
    """Check the stored summary against the one that follows from the stored accuracies."""
    try:
        summary = summarize(values["accuracy_matrix"], values["ood"], values["first_rows"])
    except ValueError as error:
        raise ReportError(f"{path}: {error}") from None
    values["accuracy_matrix"] = np.array(summary.pop("accuracy_matrix"), dtype=np.float64)
    values["ood"] = summary.pop("ood")
    values["first_rows"] = summary.pop("first_rows", list(range(len(values["accuracy_matrix"]))))
    for key, expected in summary.items():
        stored = values[key]
        agree = stored is expected if None in (stored, expected) else abs(stored - expected) <= _AGREEMENT
        if not agree:
            raise ReportError(f"{path}: {key} is {_shown(stored)}, but the accuracies give {_shown(expected)}")
    experiences, listed = len(values["accuracy_matrix"]), len(values["classes_per_experience"])
    if listed != experiences:
        raise ReportError(f"{path}: classes_per_experience lists {listed} experiences, the matrix has {experiences}")
    if values["ood_reference"] is None:
        values["ood_reference"] = {stream: _recorded_reference(values, stream) for stream in values["ood"]}
    if values["ood_reference"].keys() != values["ood"].keys():
        raise ReportError(f"{path}: ood_reference must name the streams of ood")


def _recorded_reference(values: dict[str, Any], stream: str) -> float | None:
    """The `Result.ood_reference` of a result without one, from the sizes and classes that it records.

    An experience's accuracy cannot be taken apart, so a stream must have all of its classes or none.
    """
    accuracies, data = values["accuracy_matrix"][-1], values["data"]
    try:
        test = values["config"].get("eval", {}).get("stream", "test")
        sizes, test_sizes = data["stream_sizes"][stream], data["stream_sizes"][test]
        classes = [set(experience["classes"]) for experience in data["experiences"]]
        everything = set().union(*classes)
        there = set(data.get("ood", {}).get(stream, {}).get("classes", everything))
        columns = [column for column, of_column in enumerate(classes) if of_column <= there]
        if len(accuracies) != len(classes) or len(accuracies) != len(test_sizes):
            return None
        if there != set().union(*(classes[column] for column in columns)):
            return None
        if len(sizes) == 1 and all(of_column == everything for of_column in classes):
            sizes = test_sizes  # the same classes in each experience, so one OOD experience is about all of them
        of_columns = [float(accuracies[column]) for column in columns]
        weighted = sum(size * accuracy for size, accuracy in zip(sizes, of_columns, strict=True))
        reference = round(weighted / sum(sizes), 6)  # as the accuracy on the stream
        return reference if 0 <= reference <= 100 else None
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.2f}"
