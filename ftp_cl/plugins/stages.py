"""Which experiences a strategy trains on now, and where one begins and ends.

That is not always `strategy.experience`: an online stream (`split_online_stream`) shows an experience in parts, its
mini-experiences, and joint training takes all experiences at once. What acts "per experience" asks here.
"""

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks import OnlineCLExperience
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training import JointTraining
from avalanche.training.templates import SupervisedMetaLearningTemplate

from ftp_cl.models.heads import classes_of


def has_hidden_boundaries(experience: Any) -> bool:
    """Whether this is a part of an experience that does not say of which one."""
    return isinstance(experience, OnlineCLExperience) and not experience.access_task_boundaries


def whole_experience(experience: Any) -> Any:
    """The experience that this one is a part of; itself where it is none, or does not say so."""
    is_part = isinstance(experience, OnlineCLExperience) and experience.access_task_boundaries
    return experience.origin_experience if is_part else experience


def begins(experience: Any) -> bool:
    """Whether a whole experience begins with this one; never where boundaries are hidden."""
    if isinstance(experience, OnlineCLExperience):
        return experience.access_task_boundaries and experience.is_first_subexp
    return True


class PartsDone:
    """Counts the parts of an experience, to know the last one: Avalanche's `is_last_subexp` misses some.

    Attributes:
        count: parts of the present experience that are trained.
    """

    def __init__(self) -> None:
        self.count = 0

    def begin(self, experience: Any) -> bool:
        """Once before training on each part; as `begins`."""
        if begins(experience):
            self.count = 0
        return begins(experience)

    def end(self, experience: Any, *, if_hidden: bool = False) -> bool:
        """Once after training on each part: whether the whole experience has ended; `if_hidden` where none can tell."""
        self.count += 1
        if has_hidden_boundaries(experience):
            return if_hidden
        if isinstance(experience, OnlineCLExperience):
            return experience.is_last_subexp or self.count == experience.sub_stream_length
        return True


def number_of_parts(experience: Any) -> int:
    """How many parts the experience has that this one belongs to; 1 where it is whole.

    Raises:
        ValueError: if it is a part that does not say so.
    """
    if not isinstance(experience, OnlineCLExperience):
        return 1
    if has_hidden_boundaries(experience) or not experience.sub_stream_length:
        raise ValueError("This online stream does not say in how many parts it shows an experience.")
    return experience.sub_stream_length


def experiences_trained_on(strategy: Any) -> Sequence[Any]:
    """Whole experiences whose images the strategy trains on now, stored ones aside.

    One, but for joint training: all with Avalanche's `JointTraining`; with the plugin of this name all in the first
    experience, none in later ones.
    """
    if isinstance(strategy, JointTraining):
        return strategy._experiences
    for plugin in strategy.plugins:
        if hasattr(plugin, "experiences_trained_on"):
            return plugin.experiences_trained_on(strategy)
    return [whole_experience(strategy.experience)]


def classes_trained_on(strategy: Any) -> list[int]:
    """The sorted class ids of these experiences, and of the data where a strategy (Cumulative) trains on more.

    Raises:
        ValueError: if an experience does not list its classes.
    """
    of_experiences = {label for experience in experiences_trained_on(strategy) for label in classes_of(experience)}
    if not of_experiences:
        return []
    targets = strategy.adapted_dataset.targets
    labels = (int(label) for label in getattr(targets, "uniques", targets))
    return sorted({*of_experiences, *(label for label in labels if label >= 0)})


def joined(experiences: Sequence[Any]) -> Any:
    """The images of several experiences, at least one, as one dataset."""
    return concat_datasets([experience.dataset for experience in experiences])


def matching(experiences: Sequence[Any], stream: Any, what: str) -> list[Any]:
    """The experiences of another stream of the benchmark that belong to these.

    Raises:
        ValueError: if the stream has not as many experiences as theirs.
    """
    training = experiences[0].origin_stream
    if len(stream) != len(training):
        raise ValueError(
            f"The {what} stream has {len(stream)} experiences and the training stream {len(training)}: they "
            "must have as many."
        )
    return [stream[experience.current_experience] for experience in experiences]


def refuse_parts(experience: Any, what: str) -> None:
    """For what needs all images of an experience at once.

    Raises:
        ValueError: in an online stream.
    """
    if isinstance(experience, OnlineCLExperience):
        raise ValueError(f"{what} needs whole experiences, and an online stream has none.")


def refuse_inner_updates(strategy: Any, what: str) -> None:
    """For what acts in `before_backward` or `after_update`, which strategies of meta-learning never call.

    Raises:
        TypeError: for these strategies.
    """
    if isinstance(strategy, SupervisedMetaLearningTemplate):
        raise TypeError(
            f"{what} would do nothing in {type(strategy).__name__}, which updates weights several times an iteration "
            "and calls no plugin there."
        )


def refuse_hidden(experience: Any, what: str) -> None:
    """For what happens at the end of an experience, or over its length.

    Raises:
        ValueError: in an online stream that does not say where that is.
    """
    if has_hidden_boundaries(experience):
        raise ValueError(
            f"{what} needs to know where an experience ends, and this online stream has none that it shows: split it "
            "with access_task_boundaries=True."
        )
