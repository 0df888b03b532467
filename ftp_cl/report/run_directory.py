"""A run's directory: what its files are called, and what the run is doing: finished, running, failed, interrupted."""

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONFIG_FILE = "config.yaml"
EVENTS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
LOCK_FILE = ".lock"
ERROR_FILE = "error.json"
"""In the directory of a run that failed: its error, until it is tried again."""

STATES = ("running", "failed", "interrupted", "finished")

_TAIL = 64 * 1024  # bytes of metrics.jsonl that surely hold its last few lines


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


def statuses(root: Path) -> Iterator[RunStatus]:
    """The status of each run directory below `root`."""
    for folder, _, files in os.walk(root):
        if CONFIG_FILE in files or ERROR_FILE in files:
            directory = Path(folder)
            latest, age = _latest(directory / EVENTS_FILE)
            if (state := _state(directory)) == "failed":
                latest = _error(directory / ERROR_FILE)
            yield RunStatus(directory, state, latest, age)


def is_locked(directory: Path) -> bool:
    """Whether a process on a machine that shares the directory's locks is writing it now."""
    try:
        file = os.open(directory / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _state(directory: Path) -> str:
    if (directory / RESULT_FILE).exists():
        return "finished"
    if is_locked(directory):
        return "running"
    return "failed" if (directory / ERROR_FILE).exists() else "interrupted"


def _error(path: Path) -> str:
    try:
        error = str(json.loads(path.read_text())["error"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "unknown error"
    return "".join(character if character.isprintable() else " " for character in error)


def _latest(events: Path) -> tuple[str, float | None]:
    try:
        with events.open("rb") as file:
            file.seek(max(0, events.stat().st_size - _TAIL))
            lines = deque(file.read().decode(errors="replace").splitlines(), maxlen=20)
        age = max(0.0, time.time() - events.stat().st_mtime)
    except OSError:
        return "", None
    for line in reversed(lines):
        try:
            event = json.loads(line)
            if event["event"] == "train":
                place = f"experience {event['experience'] + 1}, epoch {event['epoch'] + 1}"
                return f"{place}: loss {'not finite' if event['loss'] is None else format(event['loss'], '.3g')}", age
            if event["event"] == "eval":
                accuracy = sum(event["accuracy"]) / len(event["accuracy"])
                return f"experience {event['experience'] + 1}: {accuracy:.1f} % on {event['stream']}", age
        except (ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
            continue  # cut off, or not of interest
    return "", age
