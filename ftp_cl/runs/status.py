"""A run's directory: what its files are called, and what the run is doing: finished, running, failed, interrupted."""

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from ftp_cl.runs.files import open_file, read_file
from ftp_cl.runs.records import CONFIG_FILE, EVENTS_FILE, RESULT_FILE, EvalEvent, TrainEvent
from ftp_cl.runs.text import printable

LOCK_FILE = ".lock"
ERROR_FILE = "error.json"
"""In the directory of a run that failed: its error, until it is tried again."""

STATES = ("running", "failed", "interrupted", "finished")

_MEASUREMENT: TypeAdapter[TrainEvent | EvalEvent] = TypeAdapter(TrainEvent | EvalEvent)

_TAIL = 64 * 1024  # bytes of metrics.jsonl that surely hold its last few lines

# A config.yaml of a run says what it runs; those of W&B, of Hydra's conf/ and of other programs say it otherwise.
_OF_A_RUN = [re.compile(rf"^{key}:\n(?:  .*\n)*?  name:", re.MULTILINE) for key in ("benchmark", "method", "model")]


@dataclass(frozen=True)
class RunStatus:
    """What one run is doing.

    Attributes:
        directory: the run's.
        state: one of `STATES`.
        latest: what was measured last, or the error of a failed run, in words.
        age: seconds since something was measured; None if nothing was.
    """

    directory: Path
    state: str
    latest: str
    age: float | None


class LeftOut(NamedTuple):
    """What a report or a listing does not contain, and why, in words that read on after its path."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


def statuses(root: Path, left_out: list[LeftOut] | None = None) -> Iterator[RunStatus]:
    """The status of each run directory at or below `root`, behind links too.

    Args:
        root: is a directory.
        left_out: gets the directories that cannot be looked into.
    """
    for directory, names in directories(root, [] if left_out is None else left_out):
        loads_data = names == {LOCK_FILE} and is_locked(directory)
        if loads_data or ERROR_FILE in names or (CONFIG_FILE in names and _is_of_a_run(directory / CONFIG_FILE)):
            latest, age = _latest(directory / EVENTS_FILE)
            if (state := _state(directory)) == "failed":
                latest = _error(directory / ERROR_FILE)
            yield RunStatus(directory, state, printable(latest), age)


def directories(root: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, set[str]]]:
    """A directory and all below it, each real one once, however many links lead to it.

    A link to a directory that `root` lies in is not followed: what stands beside `root` was not asked for.

    Args:
        root: is a directory.
        left_out: gets the directories that cannot be listed, and the links that may have led to a run and lead nowhere.

    Yields:
        The directory, with the links that led there in its path, and the names in it that are no directories.
    """
    seen = {_identity(folder) for folder in root.resolve().parents}
    real = [root]
    linked: list[Path] = []
    while real or linked:
        folder = real.pop() if real else linked.pop()  # links last: a path without one tells more
        names, broken = set(), []
        try:
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            left_out.append(LeftOut(folder, f"cannot be looked into ({error.strerror})"))
            continue
        for entry in entries:
            try:
                is_directory = stat.S_ISDIR(os.stat(entry).st_mode) if entry.is_symlink() else entry.is_dir()
            except OSError as error:
                broken.append(LeftOut(folder / entry.name, f"cannot be followed ({error.strerror})"))
                is_directory = False
            if is_directory:
                (linked if entry.is_symlink() else real).append(folder / entry.name)
            else:
                names.add(entry.name)
        if not names & {CONFIG_FILE, RESULT_FILE}:  # within a run they stand for files that were not fetched
            left_out += broken
        yield folder, names


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_of_a_run(config: Path) -> bool:
    try:
        text = read_file(config).decode(errors="replace")
    except OSError:
        return True  # whose it is cannot be told: better listed than lost
    return all(key.search(text) for key in _OF_A_RUN)


def is_locked(directory: Path) -> bool:
    """Whether a process on a machine that shares the directory's locks is writing it now."""
    with contextlib.suppress(OSError), open_file(directory / LOCK_FILE) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _state(directory: Path) -> str:
    if (directory / RESULT_FILE).exists():
        return "finished"
    if is_locked(directory):
        return "running"
    return "failed" if (directory / ERROR_FILE).exists() else "interrupted"


def _error(path: Path) -> str:
    try:
        return str(json.loads(read_file(path))["error"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unknown error"


def _latest(events: Path) -> tuple[str, float | None]:
    try:
        with open_file(events) as file:
            status = os.fstat(file.fileno())
            file.seek(max(0, status.st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()[-20:]
    except OSError:
        return "", None
    age = max(0.0, time.time() - status.st_mtime)  # clocks are set back
    for line in reversed(lines):
        try:
            event = _MEASUREMENT.validate_json(line)
        except ValidationError:
            continue  # cut off, or not of interest
        if isinstance(event, TrainEvent):
            loss = "not finite" if event.loss is None else format(event.loss, ".3g")
            return f"experience {event.experience + 1}, epoch {event.epoch + 1}: loss {loss}", age
        accuracy = sum(event.accuracy) / len(event.accuracy)
        return f"experience {event.experience + 1}: {accuracy:.1f} % on {event.stream}", age
    return "", age
