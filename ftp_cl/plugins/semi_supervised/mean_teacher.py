"""Mean Teacher: agree with the average of the model's own weights."""

from typing import Any, Self

import torch

from ftp_cl.plugins.semi_supervised.base import SemiSupervisedPlugin, UnlabelledLoss
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch, View
from ftp_cl.plugins.semi_supervised.losses import consistency_loss, sigmoid_ramp
from ftp_cl.plugins.semi_supervised.views import WeakView


class MeanTeacher(SemiSupervisedPlugin):
    """Consistency with a teacher whose weights are a moving average of the student's (arXiv 1703.01780).

    The teacher (Tarvainen and Valpola, NeurIPS 2017) sees another weak view of the same images, and is what is
    evaluated. It answers in evaluation mode, without dropout, and only unlabelled images are compared; in the paper
    labelled ones are too.

    Args:
        view: drawn twice for each image; ``WeakView()`` if None.
        weight: of the loss at the end of the ramp; 100 as published, for a mean over classes.
        ratio: unlabelled images per labelled one; 3 as in the paper's runs on CIFAR-10 (75 for 25).
        ema_decay: of the teacher; 0.999 as published (and 0.99 during the ramp, where here the average is over all
            steps so far, up to the last thousand).
        ramp: share of an experience's iterations over which the weight rises; 0.27, the paper's 40 of 150 thousand.
        options: as ``SemiSupervisedPlugin``.

    Raises:
        ValueError: if ``ramp`` is not above 0 or ``ema_decay`` is None, and as ``SemiSupervisedPlugin``.
    """

    def __init__(
        self,
        *,
        view: View | None = None,
        weight: float = 100.0,
        ratio: float = 3.0,
        ema_decay: float = 0.999,
        ramp: float = 0.27,
        **options: Any,
    ) -> None:
        super().__init__([view or WeakView()] * 2, ratio=ratio, weight=weight, ema_decay=ema_decay, **options)
        if ema_decay is None:
            raise ValueError("ema_decay=None leaves no teacher: it must lie between 0 and 1, 1 excluded.")
        if not ramp > 0:
            raise ValueError(f"ramp={ramp} must be above 0.")
        self._end = ramp

    @classmethod
    def with_views(cls, *, flip: bool, crop: float, **options: Any) -> Self:
        """Return a plugin whose view has this strength; see ``WeakView``."""
        return cls(view=WeakView(flip, crop), **options)

    def ramp(self, progress: float) -> float:
        """Return the paper's sigmoid-shaped ramp."""
        return sigmoid_ramp(progress, self._end)

    def unlabelled_loss(self, strategy: Any, batch: UnlabelledBatch) -> UnlabelledLoss:
        """Return the squared difference between student and teacher; all images are used."""
        with torch.no_grad():
            teacher = self.logits(strategy, self.teacher(strategy), batch.views[1], batch)
        student = self.logits(strategy, strategy.model, batch.views[0], batch)
        labels = teacher.argmax(1)
        return UnlabelledLoss(consistency_loss(student, teacher), labels, torch.ones_like(labels, dtype=torch.bool))
