"""Reads a run's metrics.jsonl: what result.json does not hold, as radii over experiences."""

import contextlib
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import TypeVar, Union, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from ftp_cl.runs.files import open_file
from ftp_cl.runs.schema import ProjectionEvent
from ftp_cl.runs.status import EVENTS_FILE
from ftp_cl.runs.text import printable

_LARGEST = 1e38  # about what float32 holds: the weights of a run that goes beyond are not finite

Event = TypeVar("Event", bound=BaseModel)


def events(run_dir: Path, *kinds: type[Event]) -> Iterator[Event]:
    """The events of some kinds that a run has written, in the order of their lines.

    Lines that cannot be read are passed over, wherever they stand: a killed run cuts its last line, and a resumed one
    may write on behind the cut.

    Args:
        run_dir: directory of the run; a missing or unreadable metrics.jsonl has no events.
        kinds: of the schema.
    """
    # Nearly all lines are training steps: parse only those that can matter.
    needles = [f'"{get_args(kind.model_fields["event"].annotation)[0]}"'.encode() for kind in kinds]
    schema: TypeAdapter[Event] = TypeAdapter(Union[kinds])  # type: ignore[arg-type]  # noqa: UP007
    with contextlib.suppress(OSError), open_file(run_dir / EVENTS_FILE) as lines:
        for line in lines:
            if any(needle in line for needle in needles):
                with contextlib.suppress(ValidationError):
                    yield schema.validate_json(line)


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
    for event in events(run_dir, ProjectionEvent):
        values = {printable(name): tensor.get(what) for name, tensor in event.tensors.items()}
        found[event.experience] = {
            name: value for name, value in values.items() if value is not None and abs(value) < _LARGEST
        }
    return [found[experience] for experience in takewhile(found.get, count())]
