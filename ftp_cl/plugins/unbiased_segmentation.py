"""MiB: class-incremental segmentation whose losses know what the background of a mask may be."""

import copy
import math
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin, GEMPlugin
from torch import Tensor

from ftp_cl.models.dense import DenseModel, MaskHead
from ftp_cl.plugins.pixel_loss import earlier_classes, indices_on, pixel_criterion
from ftp_cl.plugins.stages import PartsDone, refuse_inner_updates

_BACKGROUND = 0


class UnbiasedSegmentation(SupervisedPlugin[Any]):
    """MiB, "Modeling the Background" (Cermelli et al., CVPR 2020, arXiv 2002.00718), from the second experience on.

    What masks of an experience call background may be of an earlier class, and what the earlier model called background
    may be of a new one. So the cross-entropy adds up the probabilities of background and earlier classes;
    the distillation those of background and new classes; and the rows of new classes begin as the
    background's, among all of which its probability is shared out. Needs one more forward pass an
    iteration and a copy of the model. All classes compete: ``SeparatedPixels`` before it has no effect.

    Args:
        strength: factor of the distillation over the number of classes of the earlier model; both, and 10, as in the
            authors' code (github.com/fcdl94/MiB). Equation 8 does not divide.
        initialize: let new rows begin as the background's.
        unbiased: False for plain distillation of masks, as Learning without Forgetting (arXiv 1606.09282) has it for
            images: among background and earlier classes alone. Nothing else is changed then.

    Raises:
        ValueError: for a negative strength; at the first experience, beside a plugin that keeps images: replay, GEM,
            A-GEM.
        TypeError: at the first experience, if the model is no `DenseModel` for masks.
    """

    def __init__(self, strength: float = 10.0, initialize: bool = True, unbiased: bool = True) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength={strength} must be at least 0.")
        self.strength, self.initialize, self.unbiased = strength, initialize and unbiased, unbiased
        self.teacher: DenseModel | None = None
        self._earlier: list[int] = []
        self._parts = PartsDone()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model, and tell the criterion what background may be."""
        if not isinstance(strategy.model, DenseModel) or strategy.model.outputs != "masks":
            raise TypeError(f"UnbiasedSegmentation needs a DenseModel for masks, not {type(strategy.model).__name__}.")
        refuse_inner_updates(strategy, "UnbiasedSegmentation")
        for plugin in strategy.plugins:
            if hasattr(plugin, "storage_policy") or isinstance(plugin, GEMPlugin | AGEMPlugin):
                raise ValueError(
                    f"UnbiasedSegmentation would read earlier classes in the masks that {type(plugin).__name__} "
                    "replays as background: use one of the two."
                )
        self._earlier = earlier_classes(strategy)
        if self._parts.begin(strategy.experience) or self.teacher is None:
            self.teacher = copy.deepcopy(strategy.model) if self._earlier else None
            if self._earlier and self.initialize:
                head = next(module for module in strategy.model.modules() if isinstance(module, MaskHead))
                begin_as_background(head, self._new(strategy.model))
        if self.teacher is not None:  # from a checkpoint it comes as a copy of what is trained
            self.teacher.eval().requires_grad_(False)
        criterion = pixel_criterion(strategy)
        if self.unbiased:
            criterion.left_out, criterion.in_background = [], self._earlier

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distillation."""
        if self.teacher is not None and self.strength:
            with torch.no_grad():
                before = self.teacher(strategy.mb_x)
            distillation = unbiased_distillation if self.unbiased else plain_distillation
            loss = distillation(strategy.mb_output, before, self._earlier, self._new(strategy.model))
            strategy.loss += self.strength / (1 + len(self._earlier)) * loss

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the copy."""
        if self._parts.end(strategy.experience):
            self.teacher = None

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the criterion."""
        pixel_criterion(strategy).in_background = []

    def _new(self, model: DenseModel) -> list[int]:
        return sorted(set(model.known_classes or []) - {_BACKGROUND, *self._earlier})


def unbiased_distillation(logits: Tensor, before: Tensor, earlier: list[int], new: list[int]) -> Tensor:
    """Cross-entropy to the earlier model over background and earlier classes, unbiased.

    Args:
        logits: [B, classes, H, W] of the model; those of the background and the new classes are added up.
        before: the same of the earlier model, which knows no new class.
        earlier: class indices without the background.
        new: class indices.
    """
    scores = logits.log_softmax(dim=1)
    joined = scores[:, indices_on([_BACKGROUND, *new], scores.device)].logsumexp(dim=1, keepdim=True)
    targets = before[:, indices_on([_BACKGROUND, *earlier], before.device)].softmax(dim=1)
    return -(targets * torch.cat([joined, scores[:, indices_on(earlier, scores.device)]], dim=1)).sum(dim=1).mean()


def plain_distillation(logits: Tensor, before: Tensor, earlier: list[int], new: list[int]) -> Tensor:
    """As `unbiased_distillation`, but new classes are left out of the softmax."""
    if new:
        logits = logits.index_fill(1, indices_on(new, logits.device), -torch.inf)
    return unbiased_distillation(logits, before, earlier, [])


@torch.no_grad()
def begin_as_background(head: MaskHead, new: list[int]) -> None:
    """Give new classes the background's row, and share its probability out among them and it."""
    layer = head.classifier
    assert layer.bias is not None
    layer.weight[new] = layer.weight[_BACKGROUND].clone()
    layer.bias[[_BACKGROUND, *new]] = layer.bias[_BACKGROUND] - math.log(len(new) + 1)
