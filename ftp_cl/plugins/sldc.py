"""SLDC: the Gaussians of earlier classes follow the backbone by a linear map, and the head is refined on them."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from ftp_cl.plugins.classifier_alignment import ClassifierAlignment
from ftp_cl.plugins.prototypes import experience_features
from ftp_cl.plugins.stages import begins

_LEAST_PROBABILITY, _LEAST_LABEL = 1e-7, 1e-4


class SLDC(ClassifierAlignment):
    """After each experience, moves the Gaussians of earlier classes and trains a copy of the head on draws from all.

    Rao, Xu, Li, Zhao, Liu, Ha, Alippi, "Compensating Distribution Drifts in Class-incremental Learning of Pre-trained
    Vision Transformers", AAAI 2026, arXiv 2511.09926, the linear variant, by the authors' code
    (github.com/raoxuan98-hash/sldc_rebuttal, models/sldc_modules.py): `drift_map` takes mean m and covariance S of
    each earlier class to m W and W^T S W. The head is refined by Adam (weight decay 1e-4, cosine to a tenth) on
    symmetric cross-entropy in batches of 3.2 features a class, after the first experience too. No image is stored.

    What differs: features are drawn anew each epoch; 1e-3 is added to the diagonal of a covariance when it is drawn
    from, and nothing when it is moved; and the distillation that the paper adds in training is another method's
    (`FeatureDistillation`), or a projection takes its place.

    Args:
        epochs: of the refinement; 6 as published.
        samples: features drawn for each class an epoch; 1024 as published.
        lr: of the refinement; 5e-4 as published.
        ridge: of `drift_map`; 1e-4 as published.
        alpha: of `drift_map`; 1 as published.

    Raises:
        ValueError, TypeError: as `ClassifierAlignment`.
    """

    _noise = 1e-3**0.5
    _oldest = 1.0
    _begins_with = 1

    def __init__(
        self, epochs: int = 6, samples: int = 1024, lr: float = 5e-4, ridge: float = 1e-4, alpha: float = 1.0
    ) -> None:
        super().__init__(epochs, samples, lr)
        self.ridge, self.alpha = ridge, alpha
        for name in ("ridge", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0.")
        self._before: Tensor | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the new images with the backbone as it is."""
        super().before_training_exp(strategy, **kwargs)
        if self._gaussians and begins(strategy.experience):
            found = experience_features(strategy)
            self._before = None if found is None else found[0]

    def state_dict(self) -> dict[str, Any]:
        """The Gaussians, the refined head, and what is needed to move them."""
        return {**super().state_dict(), "before": self._before}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        self._before = state["before"]

    def _move_earlier(self, features: Tensor) -> None:
        if self._before is None:
            return
        moved = drift_map(self._before, features, self.ridge, self.alpha)
        for label, (mean, factor) in self._gaussians.items():
            self._gaussians[label] = mean @ moved.to(mean), factor @ moved.to(factor)
        self._before = None

    def _optimizer(self, parameters: list[nn.Parameter]) -> tuple[Optimizer, LRScheduler]:
        optimizer = torch.optim.Adam(parameters, lr=self.lr, weight_decay=1e-4)
        return optimizer, CosineAnnealingLR(optimizer, self.epochs, eta_min=self.lr / 10)

    def _batch_size(self) -> int:
        return max(1, 32 * len(self._gaussians) // 10)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        columns = [label for classes in self._experiences for label in classes]
        return symmetric_cross_entropy(logits[:, columns], targets)


def drift_map(before: Tensor, after: Tensor, ridge: float, alpha: float) -> Tensor:
    """W [D, D] that takes features x of an earlier backbone to x W, about those of the present one; float64.

    Ridge regression between the features scaled to length 1, mixed with the identity, exp(-N / (alpha D)) of it:
    few images say little about D^2 numbers.

    Args:
        before: [N, D], features of N images under the earlier backbone.
        after: [N, D], of the same under the present one.
        ridge: added to the diagonal of the squares.
        alpha: N / D at which the identity weighs 1 / e.
    """
    source, target = (functional.normalize(features.double(), dim=1) for features in (before, after))
    count, size = source.shape
    identity = torch.eye(size).to(source)
    fitted = torch.linalg.solve(source.T @ source + ridge * identity, source.T @ target)
    return torch.lerp(fitted, identity, math.exp(-count / (alpha * size)))


def symmetric_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Half the cross-entropy of the labels, and half that of the predictions, whose log labels are at least ln 1e-4."""
    predicted = logits.softmax(dim=1).clamp_min(_LEAST_PROBABILITY)
    labels = functional.one_hot(targets, logits.shape[1]).to(predicted).clamp_min(_LEAST_LABEL)
    return -(labels * predicted.log() + predicted * labels.log()).sum(dim=1).mean() / 2
