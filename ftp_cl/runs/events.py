"""Reads a run's metrics.jsonl: what result.json does not hold, as radii over experiences and worth of pseudo-labels."""

import contextlib
import json
import math
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from ftp_cl.runs.files import open_file
from ftp_cl.runs.status import EVENTS_FILE
from ftp_cl.runs.text import printable

_LARGEST = 1e38  # about what float32 holds: the weights of a run that goes beyond are not finite

_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def events(run_dir: Path, kind: str = "") -> Iterator[dict[str, Any]]:
    """The events that a run has written, in the order of their lines.

    Lines that cannot be read are passed over, wherever they stand: a killed run cuts its last line, and a resumed one
    may write on behind the cut.

    Args:
        run_dir: directory of the run; a missing or unreadable metrics.jsonl has no events.
        kind: of the events; default: all.
    """
    # Nearly all lines are training steps: parse only those that can matter.
    needle = f'"{kind}"'.encode() if kind else b""
    with contextlib.suppress(OSError), open_file(run_dir / EVENTS_FILE) as lines:
        for line in lines:
            if needle in line:
                try:
                    event = json.loads(line.decode(errors="replace"))
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict) and "event" in event and kind in ("", event["event"]):
                    yield event


def projection_after_each_experience(run_dir: Path, what: str) -> list[dict[str, float]]:
    """Radius or distance of every projected tensor after each experience, in the order of the experiences.

    Of several events on one experience, as after a resume, the last one counts. Numbers that are not finite are left
    out, as are the experiences from the first one on of which nothing is known.

    Args:
        run_dir: directory of the run.
        what: "radius" or "mean_distance".

    Returns:
        One dict {tensor name: value} per experience, without what is not finite; empty if nothing is.
    """
    found: dict[int, dict[str, float]] = {}
    for event in events(run_dir, "projection"):
        with contextlib.suppress(*_MALFORMED):
            values = {printable(name): _finite(tensor[what]) for name, tensor in event["tensors"].items()}
            found[int(event["experience"])] = {name: value for name, value in values.items() if value is not None}
    return [found[experience] for experience in takewhile(found.get, count())]


def pseudo_labels_per_epoch(run_dir: Path) -> list[tuple[float, float | None]]:
    """Share of pseudo-labels that were used and how many of these were right, percent, epoch by epoch.

    Of several events on one epoch the last one counts.

    Args:
        run_dir: directory of the run.

    Returns:
        One (share, precision) per epoch over all experiences; precision is None where none was used.
    """
    epochs: dict[tuple[int, int], tuple[float, float | None]] = {}
    for event in events(run_dir, "pseudo_labels"):
        with contextlib.suppress(*_MALFORMED):
            precision = None if event["precision"] is None else float(event["precision"])
            epochs[int(event["experience"]), int(event["epoch"])] = float(event["share"]), precision
    return [epochs[place] for place in sorted(epochs)]


def _finite(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if abs(number) < _LARGEST else None
