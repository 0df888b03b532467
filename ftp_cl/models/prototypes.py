"""Heads that are fitted to features without gradients: nearest class mean, and ridge regression on random features."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ftp_cl.models.heads import ClassifierHead, unit_rows

_ROUNDING = 1e-14
"""Of a sum of squares in float64, relative to its trace; with less than this on its diagonal solutions are noise."""


class PrototypeHead(ClassifierHead):
    """A head that takes in features of labelled images; in parts as at once. Has no parameters.

    Attributes:
        counts: [num_classes], float64, images per class.
    """

    counts: Tensor
    _per_class: tuple[str, ...] = ("counts",)

    def __init__(self, in_features: int):
        """Create the head without classes."""
        super().__init__(in_features, initial_classes=1)
        self._fit: Any = None
        """What follows from the sums, where it is worth keeping; None after each change."""
        self.register_buffer("counts", torch.zeros(1, dtype=torch.float64))

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor) -> None:
        """Take in more images.

        Args:
            features: [N, D].
            targets: [N] class ids.
        """
        classes = targets.unique().tolist()
        self.activate(classes)
        self._update(features.double(), targets, classes)
        for label in classes:
            self.counts[label] += (targets == label).sum()
        self._fit = None

    def _update(self, features: Tensor, targets: Tensor, classes: list[int]) -> None:
        """Take in float64 features; `counts` are those before."""
        raise NotImplementedError

    def resize(self, num_classes: int) -> None:
        """As any head; what was fitted has too many or too few classes then."""
        super().resize(num_classes)
        self._fit = None

    def _load_from_state_dict(self, *args: object) -> None:
        self._fit = None
        super()._load_from_state_dict(*args)  # type: ignore[arg-type]


class ClassMeansHead(PrototypeHead):
    """A prototype head that keeps the mean feature of each class.

    Attributes:
        means: [num_classes, D], float64: sums over many images must not lose the late ones.
    """

    means: Tensor
    _per_class = ("counts", "means")

    def __init__(self, in_features: int):
        """Create the head without classes."""
        super().__init__(in_features)
        self.register_buffer("means", torch.zeros(1, in_features, dtype=torch.float64))

    @torch.no_grad()
    def shift(self, classes: list[int], by: Tensor) -> None:
        """Move the means of `classes` by the rows of `by` [len(classes), D], where features drifted; only these."""
        self.means[classes] += by.to(self.means)
        self._fit = None

    def _update(self, features: Tensor, targets: Tensor, classes: list[int]) -> None:
        for label in classes:
            own = features[targets == label]
            self.means[label] += (own.mean(dim=0) - self.means[label]) * (len(own) / (self.counts[label] + len(own)))


class NearestMeanHead(ClassMeansHead):
    """The class whose mean feature has the largest cosine with the image's.

    "SimpleCIL": Zhou, Cai, Ye, Zhan, Liu, "Revisiting Class-Incremental Learning with Pre-Trained Models", IJCV 2024,
    arXiv 2303.07338, section 4.

    Shapes: features [B, D] -> logits [B, classes], `scale` times the cosine.

    Attributes:
        scale: largest logit; matters for probabilities only.
    """

    def __init__(self, in_features: int, scale: float = 16.0):
        """Create the head without classes."""
        super().__init__(in_features)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        means = unit_rows(self.means).to(features.dtype)
        return self._masked(self.scale * functional.linear(unit_rows(features).to(features.dtype), means))


class RandomProjectionHead(PrototypeHead):
    """Ridge regression from random features to classes, from running sums.

    McDonnell, Gong, Parvaneh, Abbasnejad, van den Hengel, "RanPAC: Random Projections and Pre-trained Models for
    Continual Learning", NeurIPS 2023, arXiv 2307.02251, equations 5 to 7: h = ReLU(f W) with W fixed and normal, G the
    sum of h h^T, C the sum of h y^T with y one-hot, and logits h (G + lambda I)^-1 C. As in the published code, lambda
    is chosen anew at each update among 1e-8, 1e-7, ..., 1e8 by the squared error on a fifth of its images, fitted to
    the others. The fifth is drawn from each class that has two images or more, one image at least. An update without
    such a class keeps the lambda that there is, 1 at first. What is less than the rounding of G counts as that.

    Shapes: features [B, D] -> logits [B, classes].

    Attributes:
        projection: W, [D, M], drawn with torch's initial seed.
        gram: G, [M, M], float64: 8 M^2 bytes, 800 MB by default; the first logits after an update take as much again,
            and an update with N images 8 N M bytes.
        class_sums: C transposed, [num_classes, M], float64.
        ridge: lambda, 0-d; a buffer, since it is learned.
    """

    projection: Tensor
    gram: Tensor
    class_sums: Tensor
    ridge: Tensor
    _per_class = ("counts", "class_sums")

    def __init__(self, in_features: int, projection_size: int = 10000):
        """Create the head without classes.

        Args:
            in_features: D.
            projection_size: M; 10000 by default as in the paper.

        Raises:
            ValueError: ``projection_size`` is not positive.
        """
        super().__init__(in_features)
        if projection_size < 1:
            raise ValueError(f"projection_size must be at least 1, got {projection_size}")
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        self.register_buffer("projection", torch.randn(in_features, projection_size, generator=generator))
        self.register_buffer("gram", torch.zeros(projection_size, projection_size, dtype=torch.float64))
        self.register_buffer("class_sums", torch.zeros(1, projection_size, dtype=torch.float64))
        self.register_buffer("ridge", torch.ones((), dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        if self._fit is None or self._fit.device != self.gram.device:
            self._fit = self._solved()
        return self._masked((self._random(features.double()) @ self._fit).to(features.dtype))

    def _solved(self) -> Tensor:
        """(G + lambda I)^-1 C, [M, classes], with one matrix beside G."""
        ridge = self.ridge.clamp_min(_ROUNDING * self.gram.trace())
        # A factor by columns, which LAPACK takes, is found in place.
        factor = self.gram.clone().mT
        factor.diagonal().add_(ridge)
        torch.linalg.cholesky(factor, out=factor)
        half = torch.linalg.solve_triangular(factor, self.class_sums.T, upper=False)  # cholesky_solve would copy it
        return torch.linalg.solve_triangular(factor.mT, half, upper=True)

    def _random(self, features: Tensor) -> Tensor:
        return (features @ self.projection.double()).relu_()

    def _update(self, features: Tensor, targets: Tensor, classes: list[int]) -> None:
        hidden = self._random(features)
        one_hot = functional.one_hot(targets, self.num_classes).double()
        held = _held_out(targets)
        if held.any():
            self.ridge.copy_(_best_ridge(hidden, one_hot, held))
        self.gram.addmm_(hidden.T, hidden)
        self.class_sums += one_hot.T @ hidden


def _held_out(targets: Tensor) -> Tensor:
    """A fifth of each class's images, at least one where there are two; bool [N], drawn with torch's initial seed."""
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
    held = torch.zeros_like(targets, dtype=torch.bool)
    for label in targets.unique():
        own = (targets == label).nonzero().flatten()
        drawn = torch.randperm(len(own), generator=generator)[: max(1, round(len(own) / 5))]
        if len(own) > 1:
            held[own[drawn.to(own.device)]] = True
    return held


def _best_ridge(hidden: Tensor, one_hot: Tensor, held: Tensor) -> Tensor:
    """The largest lambda with the least squared error on rows ``held`` out, fitted to the others, but for 1e-6; 0-d.

    One eigendecomposition of the others' products serves all: their fit is (H^T H + lambda I)^-1 H^T Y, and as well
    H^T (H H^T + lambda I)^-1 Y; the smaller matrix is taken.
    """
    train, targets, tested = hidden[~held], one_hot[~held], hidden[held]
    if len(train) > train.shape[1]:
        products, targets = train.T @ train, train.T @ targets
    else:
        products, tested = train @ train.T, tested @ train.T
    values, vectors = torch.linalg.eigh(products)
    rotated, projected = vectors.T @ targets, tested @ vectors
    ridges = 10.0 ** torch.arange(-8, 9, dtype=torch.float64, device=hidden.device)
    errors = [
        (projected @ (rotated / (values.clamp_min(0) + ridge).unsqueeze(1)) - one_hot[held]).square().mean()
        for ridge in ridges
    ]
    total = torch.stack(errors)
    # Far below the eigenvalues all errors are alike, but for rounding, and the sums' solution is least exact with 1e-8.
    return torch.where(total > total.min() * (1 + 1e-6), 0, ridges).max()
