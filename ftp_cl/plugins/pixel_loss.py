"""Cross-entropy over pixels, in which the classes of an experience compete as its masks tell them apart."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from ftp_cl.models.heads import MASK_VALUE, live_classes
from ftp_cl.plugins.stages import experiences_trained_on

_BACKGROUND = 0
_IGNORED = 255  # value of pixels that are not counted


class PixelCrossEntropy(nn.Module):
    """The mean cross-entropy over pixels that are not ignored.

    Shapes: logits [B, classes, H, W], targets [B, H, W] of class indices -> a number; 0 if all pixels are ignored.

    Attributes:
        left_out: classes that no pixel is compared with.
        in_background: classes whose probability counts as that of the background: what masks call background may be
            of them. The unbiased cross-entropy of Cermelli et al., CVPR 2020, arXiv 2002.00718.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: list[int] = []
        self.in_background: list[int] = []

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss. Targets of `left_out`, `in_background` and classes unknown to the model are background.

        Training masks have none of them, but whole masks do, as those of validation images that radii are learned on.
        """
        shown = logits.detach()[0, :, 0, 0] > MASK_VALUE
        shown[indices_on([*self.left_out, *self.in_background], shown.device)] = False
        hidden = (targets >= len(shown)) | ~shown[targets.clamp(0, len(shown) - 1)]
        targets = targets.masked_fill(hidden & (targets >= 0) & (targets != _IGNORED), _BACKGROUND)
        if self.left_out:
            logits = logits.index_fill(1, indices_on(self.left_out, logits.device), -torch.inf)
        if self.in_background:
            scores = logits.log_softmax(dim=1)
            joined = scores[:, indices_on([_BACKGROUND, *self.in_background], scores.device)]
            scores = torch.cat([joined.logsumexp(dim=1, keepdim=True), scores[:, 1:]], dim=1)
            total = functional.nll_loss(*_pixels(scores, targets), ignore_index=_IGNORED, reduction="sum")
        else:
            total = functional.cross_entropy(*_pixels(logits, targets), ignore_index=_IGNORED, reduction="sum")
        return total / (targets != _IGNORED).sum().clamp_min(1)


def _pixels(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A row for each pixel: torch's loss of images is not deterministic on a GPU, that of rows is."""
    return scores.movedim(1, -1).flatten(0, -2), targets.flatten()


def indices_on(classes: Sequence[int], device: torch.device) -> Tensor:
    """Indices on the device, kept there: a list of numbers would wait for the device each time."""
    return _kept_indices(tuple(classes), device)


@lru_cache(maxsize=64)
def _kept_indices(classes: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # so that training may use what a validation has made
        return torch.tensor(classes, dtype=torch.int64, device=device)


class NormalLoss(nn.Module):
    """The mean absolute difference of the three coordinates where the normal is known; 0 where none is.

    As facebookresearch/astmt trains normals (Maninis et al., CVPR 2019, arXiv 1904.08918).

    Shapes: normals [B, 3, H, W] of length 1, targets of the same shape with zeros where unknown -> a number.
    """

    def forward(self, normals: Tensor, targets: Tensor) -> Tensor:
        """Return the loss."""
        known = (targets != 0).any(dim=1, keepdim=True)
        total = ((normals - targets).abs() * known).sum()
        return total / (3 * known.sum()).clamp_min(1)


class SeparatedPixels(SupervisedPlugin[Any]):
    """Trains each experience's classes against each other and the background only, as `SeparatedSoftmax` for images.

    Masks of an experience call pixels of earlier classes background. A softmax over all classes would learn that from
    them, so that earlier classes vanish; apart from the softmax, they get no gradient.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave out the classes that are not trained on now."""
        pixel_criterion(strategy).left_out = earlier_classes(strategy)

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """Let all compete again, for evaluations; not before methods have learned radii when an experience ends."""
        pixel_criterion(strategy).left_out = []


def pixel_criterion(strategy: Any) -> PixelCrossEntropy:
    """Return the criterion of a strategy.

    Raises:
        TypeError: if it is another one.
    """
    if not isinstance(strategy._criterion, PixelCrossEntropy):
        raise TypeError(f"masks need criterion=PixelCrossEntropy(), not {type(strategy._criterion).__name__}.")
    return strategy._criterion


def earlier_classes(strategy: Any) -> list[int]:
    """Return the classes that the model knows and that the present experience does not show, without the background."""
    known: Iterable[int] = set().union(*(live_classes(strategy.model) or []))
    now = {int(c) for e in experiences_trained_on(strategy) for c in e.classes_in_this_experience}
    return sorted(set(known) - now - {_BACKGROUND})
