"""Pseudo-Label: train on the model's own answers."""

from typing import Any, Self

from ftp_cl.plugins.semi_supervised.base import SemiSupervisedPlugin, UnlabelledLoss, check_threshold
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch, View
from ftp_cl.plugins.semi_supervised.losses import linear_ramp, pseudo_label_loss
from ftp_cl.plugins.semi_supervised.views import WeakView


class PseudoLabel(SemiSupervisedPlugin):
    """Cross-entropy with the class of highest probability (Lee, ICML 2013 workshop).

    Args:
        threshold: probability from which a pseudo-label is used; 0, all, as published.
        view: what is made of each image, for the label and the loss alike; ``WeakView()`` if None.
        weight: of the loss at the end of the ramp; 3 as published.
        ratio: unlabelled images per labelled one; the paper has 256 for 32, 8. Default 1: a cheap baseline.
        ramp: (start, end), the shares of an experience's iterations between which the weight rises from 0. The paper's
            are epochs of training from scratch, 100 and 600.
        options: as ``SemiSupervisedPlugin``; weights are not averaged.

    Raises:
        ValueError: for a ``ramp`` that is not 0 <= start < end or a ``threshold`` outside [0, 1], and as
            ``SemiSupervisedPlugin``.
    """

    def __init__(
        self,
        threshold: float = 0.0,
        *,
        view: View | None = None,
        weight: float = 3.0,
        ratio: float = 1.0,
        ramp: tuple[float, float] = (0.1, 0.6),
        **options: Any,
    ) -> None:
        super().__init__([view or WeakView()], ratio=ratio, weight=weight, **options)
        start, end = ramp
        if not 0 <= start < end:
            raise ValueError(f"ramp={ramp} must be a start of at least 0 and an end after it.")
        check_threshold(threshold)
        self.threshold = threshold
        self._start, self._end = start, end

    @classmethod
    def with_views(cls, *, flip: bool, crop: float, **options: Any) -> Self:
        """Return a plugin whose view has this strength; see ``WeakView``."""
        return cls(view=WeakView(flip, crop), **options)

    def ramp(self, progress: float) -> float:
        """Return the paper's linear ramp."""
        return linear_ramp(progress, self._start, self._end)

    def unlabelled_loss(self, strategy: Any, batch: UnlabelledBatch) -> UnlabelledLoss:
        """Return the cross-entropy with the model's own answers; one forward pass serves both."""
        logits = self.logits(strategy, strategy.model, batch.views[0], batch)
        confidence, labels = logits.detach().softmax(1).max(1)
        used = confidence >= self.threshold
        return UnlabelledLoss(pseudo_label_loss(logits, labels, used), labels, used)
