"""What a run leaves: the keys of its result.json, the events of its metrics.jsonl, and how these are read."""

import contextlib
import math
import reprlib
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Strict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)

from ftp_cl.runs.files import open_file
from ftp_cl.runs.schema import Index
from ftp_cl.runs.text import printable

CONFIG_FILE, EVENTS_FILE, RESULT_FILE = "config.yaml", "metrics.jsonl", "result.json"
RUNS_FILE = "runs.parquet"  # of a plan: the results of its runs, see ftp_cl.study.store
RESULT_SCHEMA = "ftp_cl.result/1"


def _shown_text(text: str) -> str:
    shown = printable(text).strip()
    if not shown:
        raise ValueError("must not be empty")
    return shown


Text = Annotated[str, AfterValidator(_shown_text)]
NotNegative = Annotated[float, Field(ge=0)]
Percentage = Annotated[float, Field(ge=0, le=100 + 1e-4)]  # rounding
NumberOrNaN = Annotated[NotNegative, WrapValidator(lambda value, check: math.nan if value is None else check(value))]


class TensorProjection(BaseModel):
    """One projected tensor after the last experience; distances are row-wise L1 norms of weights minus anchor.

    What was not finite, null in the file, is NaN.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    radius: NumberOrNaN
    mean_distance: NumberOrNaN
    max_distance: NumberOrNaN
    boundary_share: NumberOrNaN


class RunResult(BaseModel):
    """The keys of a result.json; docs/metrics.md says what each number means. Keys with defaults are the newer ones.

    Attributes:
        accuracy_matrix: a row for each training, column j for test experience j, percent; null where not evaluated.
        first_rows: for each column the row after whose training it had first been trained on; None if it never was.
        average_forgetting, backward_transfer: percentage points, None if nothing was trained on before the last
            training.
        ood: percent per OOD stream; empty if none was evaluated, and then ood_average is None.
        ood_reference: for each OOD stream the accuracy on the same classes of the test stream, each with the weight
            that it has in the OOD stream, percent; None where that is not known.
        diverged: numbers were not finite.
        step_seconds_median, peak_memory_mb: None where the run could not measure them.
        projection: per projected tensor, in depth order; empty for methods without projection.
        pseudo_labels: share used and precision, percent, per epoch over all experiences; empty for methods without.
        selected_epochs: of each training, the epoch whose weights it ended with, from 0; None where it was the last.
        metric: what the numbers called accuracy are.
        pixels: for each stream its mean IoU, pixel accuracy and the IoU of each class, percent; or mean and median
            angle of normals, degrees, and the share within 11.25, 22.5 and 30 degrees; empty where images have a class.
        examples: for each stream the classes of the highest and the lowest IoU, and a picture in the run's directory.
        data: what the benchmark says of itself.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    benchmark: Text
    method: Text
    model: Text
    seed: int
    config: dict[Text, Any]
    accuracy_matrix: list[list[float | None]]
    first_rows: list[int | None] | None = None
    average_accuracy: float
    average_incremental_accuracy: float
    average_forgetting: float | None
    backward_transfer: float | None
    learning_accuracy: float
    ood: dict[Text, float]
    ood_reference: dict[Text, Percentage | None] | None = None
    ood_average: float | None
    train_seconds: NotNegative
    step_seconds_median: NotNegative | None
    peak_memory_mb: NotNegative | None
    environment: dict[Text, Any]
    classes_per_experience: list[list[Text]]
    projection: dict[Text, TensorProjection]
    metric: Literal["accuracy", "mean_iou", "within_11.25"] = "accuracy"
    pixels: dict[Text, dict[Text, Any]] = {}
    examples: dict[Text, dict[Text, Text]] = {}
    pseudo_labels: list[Annotated[tuple[float, float | None], Strict(False)]] = []
    diverged: bool = False
    selected_epochs: list[int] | None = None
    data: dict[Text, Any] = {}


_MUST_BE = {
    **{"string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false"},
    **{"list_type": "a list", "tuple_type": "a list", "dict_type": "an object", "model_type": "an object"},
}


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a result, in words that read on after its path."""
    one = error.errors(include_url=False)[0]
    if one["type"] == "missing":
        return f"the key {'.'.join(map(str, one['loc']))!r} is missing"
    said = _MUST_BE.get(one["type"])
    told = f"must be {said}" if said else one["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return printable(f"{one['loc'][0]} {told}, but is {reprlib.repr(one['input'])}")


# ---- metrics.jsonl --------------------------------------------------------------------------------------------------


class _Event(BaseModel):
    model_config = ConfigDict(strict=True)
    experience: Index


class TrainEvent(_Event):
    """One epoch; the loss is null where it was not finite."""

    event: Literal["train"]
    epoch: Index
    iteration: Index | None = None
    loss: FiniteFloat | None


class EvalEvent(_Event):
    """One evaluation of a stream: percent right in each of its experiences, whose numbers older runs did not write."""

    event: Literal["eval"]
    stream: str
    experiences: list[int] = []
    accuracy: Annotated[list[FiniteFloat], Field(min_length=1)]


class ProjectionEvent(_Event):
    """Radius and distances of each projected tensor after an experience; null where not finite."""

    event: Literal["projection"]
    tensors: dict[str, dict[str, float | None]]


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
