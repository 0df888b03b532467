"""How much of what a stream has shown an experience can speak for."""

from typing import Any

from avalanche.benchmarks import OnlineCLExperience


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
