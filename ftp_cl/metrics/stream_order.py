"""What streams are about: whether images are shifted, and which test experience a training belongs to.

The latter gives the columns of the accuracy matrix and their first rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ExperienceKey:
    """What an experience of Avalanche is told by.

    Attributes:
        number: in its stream, from 0; of a part of an experience (in an online stream) that of the whole.
        content: its task labels and classes; None if it does not list them.
    """

    number: int
    content: tuple[frozenset[int], frozenset[int]] | None = None

    @classmethod
    def of(cls, experience: Any) -> "ExperienceKey":
        """That of an experience, whatever it hides from training."""
        experience = experience.logging()
        experience = getattr(experience, "origin_experience", None) or experience
        classes, tasks = (getattr(experience, name, None) for name in ("classes_in_this_experience", "task_labels"))
        content = (
            None if classes is None or tasks is None else (frozenset(map(int, tasks)), frozenset(map(int, classes)))
        )
        return cls(int(experience.current_experience), content)


def is_ood(stream: Any, prefix: str = "ood_") -> bool:
    """Whether a stream has shifted test images: by its attribute `kind`; one without, which is not ours, by its name.

    Args:
        stream: Avalanche's.
        prefix: which the names of such streams begin with.
    """
    kind = getattr(stream, "kind", None)
    return bool(stream.name.startswith(prefix) if kind is None else kind.role == "ood")


def is_whole(stream: Any) -> bool:
    """Whether a stream has one experience alone, which is then about all of training (`ni_benchmark`'s test stream)."""
    streams = getattr(getattr(stream, "benchmark", None), "streams", {})
    full = streams.get(stream.name, stream) if hasattr(stream, "name") else stream  # not a slice of it
    return hasattr(full, "__len__") and len(full) == 1 and full[0].current_experience == 0


def first_rows(
    trainings: Iterable[Iterable[ExperienceKey]], tests: Sequence[ExperienceKey], whole: bool
) -> dict[int, int]:
    """The row, from 0, after whose training each test experience had been trained on for the first time.

    A training experience belongs to the test experience of its number. Where that one has other classes or tasks and
    exactly one has the same, as in a stream that was put together in another order, it belongs to the latter.

    Args:
        trainings: what each was on, in order of time.
        tests: the test experiences.
        whole: the only test experience belongs to all trainings, see `is_whole`.

    Returns:
        {number of a test experience: row}, without those that were never trained on.
    """
    found: dict[int, int] = {}
    for row, experiences in enumerate(trainings):
        for experience in experiences:
            found.setdefault(0 if whole else _column(experience, tests), row)
    return found


def _column(experience: ExperienceKey, tests: Sequence[ExperienceKey]) -> int:
    alike = [test.number for test in tests if test.content == experience.content and test.content is not None]
    return alike[0] if len(alike) == 1 else experience.number
