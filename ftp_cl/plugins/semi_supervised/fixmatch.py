"""FixMatch: the answer to a weak view, if confident, is the label of a strong view."""

from typing import Any, Self

import torch
from torch import Tensor

from ftp_cl.models.imprinting import evaluating
from ftp_cl.plugins.semi_supervised.base import SemiSupervisedPlugin, UnlabelledLoss, check_threshold
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch, View
from ftp_cl.plugins.semi_supervised.losses import pseudo_label_loss
from ftp_cl.plugins.semi_supervised.views import StrongView, WeakView


class FixMatch(SemiSupervisedPlugin):
    """Pseudo-labels from weak views, where confident, for strong views (Sohn et al., NeurIPS 2020, arXiv 2001.07685).

    Weak views are answered in evaluation mode: without dropout, and without a trace in running statistics. The paper's
    unlabelled images include the labelled ones; `few_labels` keeps them apart.

    Args:
        threshold: probability from which a pseudo-label is used; 0.95 as published.
        weak: for the label; ``WeakView()`` if None.
        strong: for the loss; ``StrongView()`` if None.
        weight: of the loss; 1 as published.
        ratio: unlabelled images per labelled one; 7 as published.
        ema_decay: of the weights' average, which is evaluated; 0.999 as published, for a million steps. In fewer than a
            thousand that is their plain mean (`WeightAverage`). None evaluates the last weights.
        options: as ``SemiSupervisedPlugin``.

    Attributes:
        thresholds: those of each class in the experience, where a method has such; None for ``threshold`` alone.

    Raises:
        ValueError: if ``threshold`` is not in [0, 1], and as ``SemiSupervisedPlugin``.
    """

    thresholds: Any = None

    def __init__(
        self,
        threshold: float = 0.95,
        *,
        weak: View | None = None,
        strong: View | None = None,
        weight: float = 1.0,
        ratio: float = 7.0,
        ema_decay: float | None = 0.999,
        **options: Any,
    ) -> None:
        views = [weak or WeakView(), strong or StrongView()]
        super().__init__(views, ratio=ratio, weight=weight, ema_decay=ema_decay, **options)
        check_threshold(threshold)
        self.threshold = threshold

    @classmethod
    def with_views(cls, *, flip: bool, crop: float, magnitude: int, cutout: float, **options: Any) -> Self:
        """Return a plugin whose views have these strengths; see ``WeakView`` and ``StrongView``."""
        weak = WeakView(flip, crop)
        return cls(weak=weak, strong=StrongView(weak, magnitude=magnitude, cutout=cutout), **options)

    def accept(self, probabilities: Tensor, batch: UnlabelledBatch) -> Tensor:
        """Return which answers to weak views [B, C] are used [B]."""
        return probabilities.amax(1) >= self.threshold

    def strong_loss(self, logits: Tensor, labels: Tensor, used: Tensor) -> Tensor:
        """Return the loss of the strong views' logits."""
        return pseudo_label_loss(logits, labels, used)

    def method_state(self) -> dict[str, Any]:
        """Return the state of the thresholds, if there are any."""
        return {} if self.thresholds is None else self.thresholds.state_dict()

    def restore_method_state(self, state: dict[str, Any]) -> None:
        """Take in the state of the thresholds, if there are any."""
        if self.thresholds is not None:
            self.thresholds.load_state_dict(state)

    def unlabelled_loss(self, strategy: Any, batch: UnlabelledBatch) -> UnlabelledLoss:
        """Answer the weak views, choose, and return the loss of the strong ones."""
        weak, strong = batch.views
        with torch.no_grad(), evaluating(strategy.model):
            probabilities = self.logits(strategy, strategy.model, weak, batch).softmax(1)
        labels = probabilities.argmax(1)
        used = self.accept(probabilities, batch)
        logits = self.logits(strategy, strategy.model, strong, batch)
        return UnlabelledLoss(self.strong_loss(logits, labels, used), labels, used)
