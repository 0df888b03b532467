"""New classes compete with each other, not with those of earlier experiences whose images are absent."""

from collections.abc import Iterable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

_MASKED = -1000.0  # as Avalanche's IncrementalClassifier masks: a softmax probability of exactly 0


class SeparatedCriterion(nn.Module):
    """A criterion in whose softmax the current classes and all other classes are apart.

    An image of a current class is compared with current classes only; one of an earlier class (from a replay buffer)
    with all classes that are not current. Separated softmax: Ahn et al., "SS-IL", ICCV 2021, arXiv 2003.13947. Without
    stored images the loss is that of rehearsal-free methods, which mask the logits of earlier tasks in training.

    Shapes: logits [B, classes], targets [B] -> what `criterion` returns.

    Args:
        criterion: of logits and targets, such as `nn.CrossEntropyLoss()`.

    Attributes:
        current: indices of the current classes; empty: plain `criterion`.
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion
        self.current: list[int] = []

    def begin(self, classes: Iterable[int]) -> None:
        """Make these the current classes."""
        self.current = sorted(classes)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss; no logit of the other group gets a gradient."""
        if self.current:
            is_current = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            is_current[self.current] = True
            logits = logits.masked_fill(is_current[targets, None] != is_current, _MASKED)
        return self.criterion(logits, targets)


class SeparatedSoftmax(SupervisedPlugin[Any]):
    """Trains each experience's classes against each other only: `Naive(..., plugins=[SeparatedSoftmax()])`.

    In a class-incremental stream the images of earlier classes are gone (or few). A softmax over all classes then
    learns above all to answer with the newest, whatever the backbone does. Evaluation is over all classes as before.
    Put it before plugins that compute losses of their own.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Wrap the strategy's criterion once, and tell it the classes of this experience."""
        if not isinstance(strategy._criterion, SeparatedCriterion):
            strategy._criterion = SeparatedCriterion(strategy._criterion)
        strategy._criterion.begin(strategy.experience.classes_in_this_experience)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Between experiences, the loss that evaluation reports is the plain one."""
        strategy._criterion.begin([])
