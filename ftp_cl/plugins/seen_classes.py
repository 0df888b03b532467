"""How much of what a strategy has trained on the present experience can speak for."""

from typing import Any

from avalanche.models import MultiTaskModule

from ftp_cl.plugins.stages import experiences_trained_on, has_hidden_boundaries


class SeenClasses:
    """Collects the classes that a strategy trains on, in whatever order experiences come.

    Class ids that begin anew in each task are different classes in different tasks, where the benchmark tells
    (Avalanche's `nc_benchmark`) or the model has a head for each task.

    Attributes:
        classes: of all experiences so far.
    """

    def __init__(self) -> None:
        self.classes: set[Any] = set()

    def share(self, strategy: Any, before: float = 0.0) -> float:
        """Classes that are trained on now over all so far; 1 if the experience does not tell, or boundaries are hidden.

        Args:
            strategy: in training.
            before: classes that were known before the stream and are in none of its experiences.
        """
        if has_hidden_boundaries(strategy.experience):
            return 1.0
        has_heads = any(isinstance(module, MultiTaskModule) for module in strategy.model.modules())
        experiences = experiences_trained_on(strategy)
        here = {label for experience in experiences for label in _classes(experience, has_heads)}
        self.classes |= here
        return len(here) / (before + len(self.classes)) if here else 1.0


def _classes(experience: Any, has_heads: bool) -> set[Any]:
    """Names of the classes of an experience, the same in all of them."""
    benchmark = getattr(getattr(experience, "_origin_stream", None), "benchmark", None)
    original = getattr(benchmark, "original_classes_in_exp", None)
    if original:
        return set(original[experience.current_experience])
    # -1: unlabelled
    labels = {label for label in getattr(experience, "classes_in_this_experience", None) or () if label >= 0}
    if has_heads:
        return {(task, label) for task in set(experience.task_labels) for label in labels}
    return labels
