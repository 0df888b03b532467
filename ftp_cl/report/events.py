"""Reads from a run's metrics.jsonl what result.json does not hold: radii over experiences, worth of pseudo-labels."""

import json
import math
from pathlib import Path

from ftp_cl.report.run_directory import EVENTS_FILE


def projection_after_each_experience(run_dir: Path, what: str) -> list[dict[str, float]]:
    """Radius or distance of every projected tensor after each experience, in the order of the experiences.

    Lines that cannot be read are passed over, wherever they stand: a killed run cuts its last line, and a resumed one
    may write on behind the cut. Of several lines on one experience, as after a resume, the last one counts.

    Args:
        run_dir: directory of the run; a missing or unreadable metrics.jsonl gives an empty list.
        what: "radius" or "mean_distance".

    Returns:
        One dict {tensor name: value} per experience, without what is not finite; empty if nothing is.
    """
    found: dict[int, dict[str, float]] = {}
    try:
        with (run_dir / EVENTS_FILE).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                # Nearly all lines are training steps: parse only those that can matter.
                if '"projection"' in line:
                    found.update(_projection_event(line, what))
    except OSError:
        return []
    return [found[experience] for experience in sorted(found)] if any(found.values()) else []


def _projection_event(line: str, what: str) -> dict[int, dict[str, float]]:
    try:
        event = json.loads(line)
        if event["event"] != "projection":
            return {}
        values = {name: tensor[what] for name, tensor in event["tensors"].items()}
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        return {int(event["experience"]): finite} if values else {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def pseudo_labels_per_epoch(run_dir: Path) -> list[tuple[float, float | None]]:
    """Share of pseudo-labels that were used and how many of these were right, percent, epoch by epoch.

    Lines that cannot be read are passed over; of several on one epoch the last one counts.

    Args:
        run_dir: directory of the run; a missing or unreadable metrics.jsonl gives an empty list.

    Returns:
        One (share, precision) per epoch over all experiences; precision is None where none was used.
    """
    epochs: dict[tuple[int, int], tuple[float, float | None]] = {}
    try:
        with (run_dir / EVENTS_FILE).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if '"pseudo_labels"' in line:
                    epochs.update(_pseudo_labels_event(line))
    except OSError:
        return []
    return [epochs[place] for place in sorted(epochs)]


def _pseudo_labels_event(line: str) -> dict[tuple[int, int], tuple[float, float | None]]:
    try:
        event = json.loads(line)
        if event["event"] != "pseudo_labels":
            return {}
        precision = None if event["precision"] is None else float(event["precision"])
        return {(int(event["experience"]), int(event["epoch"])): (float(event["share"]), precision)}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
