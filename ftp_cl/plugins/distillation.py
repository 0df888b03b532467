"""Distillation of features: they stay near those that the model gave when the experience began."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins.stages import PartsDone, refuse_inner_updates

_SMALLEST_LENGTH = 1e-12


def feature_distance(features: Tensor, targets: Tensor) -> Tensor:
    """Squared Euclidean distance over the squared length of the target, averaged over the batch; 0-d.

    Args:
        features: [B, D].
        targets: [B, D], of the earlier model; no gradient goes to them.
    """
    targets = targets.detach()
    lengths = targets.square().sum(dim=1).clamp_min(_SMALLEST_LENGTH)
    return ((features - targets).square().sum(dim=1) / lengths).mean()


class FeatureDistillation(SupervisedPlugin[Any]):
    """Adds `feature_distance` to the model of the start of the experience to the loss.

    "Less-forgetting learning": Jung, Ju, Jung, Kim, arXiv 1607.00122, there with absolute distances; relative ones have
    a factor that does not depend on the backbone. Needs one more forward pass an iteration and a copy of the model.
    From the first experience on, where the earlier model is the pretrained one; in an online stream that shows no
    boundaries the pretrained one throughout.

    Args:
        strength: factor of the distance.

    Raises:
        ValueError: for a negative strength.
        TypeError: at the first experience, if the model is no `ContinualClassifier`.
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength={strength} must be at least 0.")
        self.strength = strength
        self.teacher: ContinualClassifier | None = None
        self._features: list[Tensor] = []
        self._remove: Callable[[], None] | None = None
        self._parts = PartsDone()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Copy the model, and listen to what goes into its head."""
        model = strategy.model
        if not isinstance(model, ContinualClassifier):
            raise TypeError(f"FeatureDistillation needs a ContinualClassifier, not {type(model).__name__}.")
        refuse_inner_updates(strategy, "FeatureDistillation")
        if self._parts.begin(strategy.experience) or self.teacher is None:
            self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self._remove = model.head.register_forward_pre_hook(self._listen).remove

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Forget the features of earlier passes."""
        self._features.clear()

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distance, on the features of the forward pass that the loss has made."""
        assert self.teacher is not None
        with torch.no_grad():
            targets = self.teacher.features(strategy.mb_x)
        strategy.loss += self.strength * feature_distance(self._features[0], targets)
        self._features.clear()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Stop listening; when the experience has ended, the copy is of no further use."""
        if self._remove is not None:
            self._remove()
        self._remove = None
        if self._parts.end(strategy.experience):
            self.teacher = None

    def _listen(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features.append(inputs[0])
