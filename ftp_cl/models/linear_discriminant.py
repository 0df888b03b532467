"""Linear discriminant analysis as a head: fitted to features without gradients, from running sums."""

import torch
from torch import Tensor
from torch.nn import functional

from ftp_cl.models.heads import ClassifierHead


class LinearDiscriminantHead(ClassifierHead):
    """Class means and one pooled within-class covariance; equal priors.

    Deep streaming LDA (Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis",
    CVPR Workshops 2020, arXiv 1909.01520), with the covariance shrunk as in scikit-learn's
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage=...): (1 - s) S + s tr(S) / D I. Fitting in parts gives
    what fitting at once gives. Memory does not grow with the number of images.

    Shapes: features [B, D] -> logits [B, classes], log-posteriors up to a constant per image.

    Attributes:
        shrinkage: s in [0, 1].
        means: [num_classes, D], float64: sums over many images must not lose the late ones.
        counts: [num_classes], images per class.
        scatter: [D, D], sum over classes of the squared deviations from the class mean.
    """

    means: Tensor
    counts: Tensor
    scatter: Tensor

    def __init__(self, in_features: int, shrinkage: float = 0.5):
        """Create the head without classes.

        Raises:
            ValueError: ``shrinkage`` lies outside [0, 1].
        """
        super().__init__(in_features, initial_classes=1)
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage of the covariance must lie in [0, 1], got {shrinkage}")
        self.shrinkage = shrinkage
        self.register_buffer("means", torch.zeros(1, in_features, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("scatter", torch.zeros(in_features, in_features, dtype=torch.float64))
        self._fitted: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Take in more images.

        Args:
            features: [N, D].
            targets: [N] class ids.
        """
        self.activate(targets.unique().tolist())
        for label in targets.unique().tolist():
            own = features[targets == label].double()
            mean, count = own.mean(dim=0), len(own)
            shift = mean - self.means[label]
            total = self.counts[label] + count
            # Merging two groups (Chan, Golub, LeVeque 1979): their scatters and that of their means.
            centred = own - mean
            self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.counts[label] * count / total)
            self.means[label] += shift * (count / total)
            self.counts[label] = total
        self._fitted = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        if self._fitted is None or self._fitted[0].device != self.means.device:
            self._fitted = self._fit()
        weight, bias = self._fitted
        return self._masked(functional.linear(features.to(weight.dtype), weight, bias).to(features.dtype))

    def _fit(self) -> tuple[Tensor, Tensor]:
        covariance = self.scatter / self.counts.sum().clamp_min(1)
        scale = covariance.diagonal().mean()
        covariance = (1 - self.shrinkage) * covariance
        covariance.diagonal().add_(self.shrinkage * scale)
        # Without any spread (one image per class) what remains is the nearest class mean.
        weight = torch.linalg.lstsq(covariance, self.means.T).solution.T if scale > 0 else self.means
        return weight, -0.5 * (weight * self.means).sum(dim=1)

    def _resize_parameters(self, num_classes: int, starting: Tensor) -> None:
        added = num_classes - len(self.counts)
        self.means = functional.pad(self.means, (0, 0, 0, added))
        self.counts = functional.pad(self.counts, (0, added))
        self._fitted = None

    def _rows_in(self, state_dict: dict, prefix: str) -> int | None:
        self._fitted = None
        counts = state_dict.get(prefix + "counts")
        return None if counts is None else len(counts)
