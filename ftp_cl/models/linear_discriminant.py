"""Linear discriminant analysis as a head: fitted to features without gradients, from running sums."""

import torch
from torch import Tensor
from torch.nn import functional

from ftp_cl.models.heads import MASK_VALUE
from ftp_cl.models.prototypes import ClassMeansHead


class LinearDiscriminantHead(ClassMeansHead):
    """Class means and one pooled within-class covariance; equal priors.

    Deep streaming LDA (Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis",
    CVPR Workshops 2020, arXiv 1909.01520), with the covariance shrunk as in scikit-learn's
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...): (1 - s) S + s tr(S) / D I. Fitting in parts gives
    what fitting at once gives. Memory does not grow with the number of images.

    Shapes: features [B, D] -> logits [B, classes], log-posteriors up to a constant per image.

    Attributes:
        shrinkage: s in [0, 1].
        scatter: [D, D], float64, sum over classes of the squared deviations from the class mean.
    """

    scatter: Tensor

    def __init__(self, in_features: int, shrinkage: float = 0.5):
        """Create the head without classes.

        Raises:
            ValueError: ``shrinkage`` lies outside [0, 1].
        """
        super().__init__(in_features)
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage of the covariance must lie in [0, 1], got {shrinkage}")
        self.shrinkage = shrinkage
        self.register_buffer("scatter", torch.zeros(in_features, in_features, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        if self._fit is None or self._fit[0].device != self.means.device:
            self._fit = self._weight_and_bias()
        weight, bias = self._fit
        scores = functional.linear(features.to(weight.dtype), weight, bias)
        # Large scores are taken relative to the best one, while float64 still has their differences.
        best = scores.masked_fill(self.active_units == 0, -torch.inf).amax(dim=1, keepdim=True)
        scores = torch.where(best.abs() > -MASK_VALUE, scores - best, scores)
        return self._masked(scores.to(features.dtype))

    def _update(self, features: Tensor, targets: Tensor, classes: list[int]) -> None:
        for label in classes:
            own = features[targets == label]
            mean, before = own.mean(dim=0), self.counts[label]
            shift, centred = mean - self.means[label], own - mean
            # Merging two groups (Chan, Golub, LeVeque 1979): their scatters and that of their means.
            between = torch.outer(shift, shift) * (before * len(own) / (before + len(own)))
            self.scatter += centred.T @ centred + between
        super()._update(features, targets, classes)

    def _weight_and_bias(self) -> tuple[Tensor, Tensor]:
        covariance = self.scatter / self.counts.sum().clamp_min(1)
        scale = covariance.diagonal().mean()
        covariance = (1 - self.shrinkage) * covariance
        covariance.diagonal().add_(self.shrinkage * scale)
        # Without any spread (one image per class) what remains is the nearest class mean.
        if scale > 0:
            # On the CPU, whose solver takes a singular covariance, too; a GPU's does not.
            weight = torch.linalg.lstsq(covariance.cpu(), self.means.T.cpu()).solution.T.to(self.means.device)
        else:
            weight = self.means
        return weight, -0.5 * (weight * self.means).sum(dim=1)
