"""What the runs under a directory are doing: finished, in progress, failed, interrupted."""

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ftp_cl.experiment.lock import is_locked
from ftp_cl.experiment.many import ERROR_FILE
from ftp_cl.experiment.record import CONFIG_FILE, EVENTS_FILE
from ftp_cl.report import RESULT_FILE

_TAIL = 64 * 1024  # bytes of metrics.jsonl that surely hold its last few lines


@dataclass(frozen=True)
class RunStatus:
    """One run as `watch` shows it.

    Attributes:
        state: finished, running, failed or interrupted.
        latest: what was measured last, in words.
        age: seconds since then; None if nothing was.
    """

    name: str
    state: str
    latest: str
    age: float | None


def watch(root: Path, every: float | None) -> None:
    """Show the runs under a directory, once or until interrupted.

    Args:
        root: searched recursively for run directories.
        every: seconds between two looks; None: one look.
    """
    console = Console()
    if every is None:
        console.print(status_table(root))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(status_table(root), refresh=True)
            time.sleep(every)


def status_table(root: Path) -> Table:
    """The runs under a directory, those in progress first.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not root.is_dir():
        raise FileNotFoundError(2, "no such directory", str(root))
    runs = sorted(statuses(root), key=lambda run: (_ORDER.index(run.state), run.name))
    counts = ", ".join(f"{sum(run.state == state for run in runs)} {state}" for state in _ORDER)
    table = Table(box=box.SIMPLE, caption=counts, caption_justify="left")
    table.add_column("run", overflow="fold", min_width=20)
    table.add_column("state", no_wrap=True)
    table.add_column("latest", min_width=24)
    table.add_column("ago", no_wrap=True)
    for run in runs:
        age = "" if run.age is None else time.strftime("%H:%M:%S", time.gmtime(run.age))
        table.add_row(Text(run.name), run.state, Text(run.latest), age)
    return table


_ORDER = ("running", "failed", "interrupted", "finished")


def statuses(root: Path) -> Iterator[RunStatus]:
    """The status of each run directory below `root`."""
    for folder, _, files in os.walk(root):
        if CONFIG_FILE in files or ERROR_FILE in files:
            directory = Path(folder)
            latest, age = _latest(directory / EVENTS_FILE)
            if (state := _state(directory)) == "failed":
                latest = _error(directory / ERROR_FILE)
            yield RunStatus(str(directory.relative_to(root)), state, latest, age)


def _state(directory: Path) -> str:
    if (directory / RESULT_FILE).exists():
        return "finished"
    if is_locked(directory):
        return "running"
    return "failed" if (directory / ERROR_FILE).exists() else "interrupted"


def _error(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown error"


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
                return f"{place}: loss {event['loss']:.3g}", age
            if event["event"] == "eval":
                accuracy = sum(event["accuracy"]) / len(event["accuracy"])
                return f"experience {event['experience'] + 1}: {accuracy:.1f} % on {event['stream']}", age
        except (ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # cut off, or not of interest
    return "", age
