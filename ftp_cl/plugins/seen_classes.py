"""How much of what a stream has shown an experience can speak for."""

from typing import Any

from avalanche.benchmarks import OnlineCLExperience

from ftp_cl.models.heads import classes_of


def classes_trained_on(strategy: Any) -> list[int]:
    """The sorted classes of the strategy's present training data and of the experience, a mini-experience's whole one.

    The data, because joint training takes more than the experience has; [] in a stream without task boundaries.
    """
    experience = strategy.experience
    if isinstance(experience, OnlineCLExperience):
        if not experience.access_task_boundaries:
            return []
        experience = experience.origin_experience
    targets = strategy.adapted_dataset.targets
    labels = (int(label) for label in getattr(targets, "uniques", targets))
    return sorted({*classes_of(experience), *(label for label in labels if label >= 0)})


def share_of_seen_classes(experience: Any, before: float = 0.0) -> float:
    """Classes of this experience over those of the stream up to it; 1 if the experience does not tell.

    Args:
        experience: of any stream.
        before: classes that were known before the stream and are in none of its experiences.
    """
    if isinstance(experience, OnlineCLExperience):
        if not experience.access_task_boundaries:
            return 1.0
        experience = experience.origin_experience
    here, seen = (
        {label for label in getattr(experience, name, None) or () if label >= 0}  # -1: unlabelled
        for name in ("classes_in_this_experience", "classes_seen_so_far")
    )
    return len(here) / (before + len(here | seen)) if here else 1.0
