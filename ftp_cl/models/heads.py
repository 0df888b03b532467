"""Classifier heads that grow with the classes of a stream: linear and (imprinted) cosine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models import DynamicModule
from torch import Tensor, nn
from torch.nn import functional

MASK_VALUE = -1000.0
"""Logit of a class never trained, as in Avalanche's IncrementalClassifier: its softmax probability is exactly 0.

Twice the lowest logit of the other classes stands there instead where that is less.
"""

_SMALLEST_LENGTH = 1e-12


def classes_of(experience: CLExperience) -> list[int]:
    """Return the sorted class ids of an experience; the label -1 of unlabelled images is none.

    Raises:
        ValueError: The experience carries no class list (as after ``split_online_stream``).
    """
    classes = getattr(experience, "classes_in_this_experience", None)
    if classes is None:
        raise ValueError(
            "this experience does not list its classes: pass the benchmark or stream through "
            "avalanche.benchmarks.with_classes_timeline"
        )
    return sorted(int(label) for label in classes if label >= 0)


def live_classes(model: nn.Module) -> list[list[int]] | None:
    """Return the classes whose logits are not masked, for each head (or task of a multi-head); None without masks."""
    groups = []
    for module in model.modules():
        active = getattr(module, "active_units", None)
        if active is None or not getattr(module, "masking", True):
            continue
        groups += list(active.values()) if isinstance(active, dict) else [active.nonzero().flatten().tolist()]
    return groups or None


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale each row of ``vectors`` [N, D] to Euclidean length 1, in float32 or wider.

    A row of length 0 stays 0 and gets no gradient, where dividing by a clamped length would give one of 1e12.
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return torch.where(lengths > _SMALLEST_LENGTH, vectors / lengths.clamp_min(_SMALLEST_LENGTH), 0.0)


def _starting_rows(first: int, last: int, width: int) -> Tensor:
    """Draw rows ``first`` to ``last - 1`` [last - first, width], uniform within 1 / sqrt(width) as in ``nn.Linear``.

    Each row has a generator of its own, seeded from the process's seed and the row's number: growing leaves the
    global generators alone, so two runs that grow at different moments still see the same batches.
    """
    bound = width**-0.5
    rows = torch.empty(last - first, width)
    for row, class_id in zip(rows, range(first, last), strict=True):
        generator = torch.Generator().manual_seed((torch.initial_seed() + class_id) % 2**63)
        row.uniform_(-bound, bound, generator=generator)
    return rows


class ClassifierHead(DynamicModule):
    """A classifier over the classes seen so far. Class ids index its rows.

    *Training* on an experience grows the rows to its largest class id and makes its classes active. *Evaluating* on
    unseen classes widens the logits only, with ``MASK_VALUE``: the criterion finds its columns, and the parameters,
    which the optimizer holds, are not replaced behind its back. Classes that were never trained are masked.

    Loading a state dict gives the head the number of rows in it. Build the optimizer after loading.

    Attributes:
        in_features: Length D of a feature vector.
        num_classes: Rows of the weight; largest trained class id + 1, or ``initial_classes`` if that is more.
        active_units: int8 [num_classes]; 1 for each class that was trained. (Not bool: some of Avalanche's strategies
            subtract the values of state dicts.)
    """

    active_units: Tensor
    _per_class: tuple[str, ...] = ("weight",)
    """Names in the state dict of the tensors that have a row for each class, beside ``active_units``.

    A state dict's number of rows is that of the first.
    """

    def __init__(self, in_features: int, initial_classes: int = 2):
        """Start with ``initial_classes`` masked rows; the default, 2, is that of Avalanche's IncrementalClassifier."""
        super().__init__()
        self.in_features = in_features
        self.register_buffer("active_units", torch.zeros(initial_classes, dtype=torch.int8))
        self._columns = initial_classes

    @property
    def num_classes(self) -> int:
        """Rows of the weight."""
        return self.active_units.shape[0]

    def adaptation(self, experience: CLExperience) -> None:
        """Make room for the classes of ``experience``; in training mode make them active. Called by Avalanche.

        Raises:
            ValueError: The experience does not list its classes.
        """
        classes = classes_of(experience)
        self._columns = max(self._columns, max(classes, default=-1) + 1)
        if self.training:
            self.activate(classes)

    def activate(self, classes: Iterable[int]) -> None:
        """Unmask ``classes``, growing where needed: what training does, for use without Avalanche.

        Strategies that compare logits with those of earlier experiences (DER) need all classes from the start:
        ``model.head.activate(range(100))``. A cosine head still imprints each class when its images come.
        """
        classes = list(classes)
        self.resize(max(self.num_classes, max(classes, default=-1) + 1))
        self.active_units[classes] = 1

    @torch.no_grad()
    def resize(self, num_classes: int) -> None:
        """Give the head ``num_classes`` rows: rows that stay are unchanged, new ones are masked.

        The parameters are replaced unless the number is the present one. They keep device, dtype and requires_grad.
        """
        if num_classes == self.num_classes:
            return
        old = self.num_classes
        starting = _starting_rows(old, max(old, num_classes), self.in_features + 1)
        for name in (*self._per_class, "active_units"):
            owner_name, _, own_name = name.rpartition(".")
            owner = self.get_submodule(owner_name)
            tensor = getattr(owner, own_name)
            kept = tensor.detach()[:num_classes]
            if isinstance(tensor, nn.Parameter):
                added = starting[:, -1] if tensor.ndim == 1 else starting[:, :-1].reshape(-1, *tensor.shape[1:])
                resized: Tensor = nn.Parameter(torch.cat([kept, added.to(kept)]), tensor.requires_grad)
            else:
                resized = torch.cat([kept, kept.new_zeros(len(starting), *kept.shape[1:])])
            setattr(owner, own_name, resized)

    @torch.no_grad()
    def renumber(self, new_ids: Sequence[int]) -> None:
        """Give each class another id: row ``i`` becomes row ``new_ids[i]``. Rows that no class takes are masked.

        Raises:
            ValueError: There is not one id for each class, or two classes get the same.
        """
        if len(new_ids) != self.num_classes or len(set(new_ids)) != len(new_ids) or min(new_ids, default=0) < 0:
            raise ValueError(f"{self.num_classes} classes need as many different ids of 0 or more, got {list(new_ids)}")
        of_classes = (*self._per_class, "active_units")
        before = {name: self.state_dict()[name].clone() for name in of_classes}
        self.resize(0)  # so that rows that no class takes are those of new classes
        self.resize(max(new_ids) + 1)
        for name in of_classes:
            self.state_dict()[name][list(new_ids)] = before[name]

    def _masked(self, logits: Tensor) -> Tensor:
        """Mask the columns [B, num_classes] of classes that are not active and append those of unseen classes."""
        inactive = self.active_units == 0
        # Scores have no bounds (log-posteriors): the mask stays so far below the lowest that its softmax is 0.
        lowest = functional.pad(logits.detach().masked_fill(inactive, 0), (0, 1)).amin(dim=1, keepdim=True)
        mask = (2 * lowest).clamp_max(MASK_VALUE)
        masked = torch.where(inactive, mask, logits)
        return torch.cat([masked, mask.expand(-1, max(0, self._columns - self.num_classes))], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rows = state_dict.get(prefix + self._per_class[0])
        if rows is not None:
            self.resize(len(rows))
        super()._load_from_state_dict(state_dict, prefix, *args)


class LinearHead(ClassifierHead):
    """A linear layer with bias, the head of most published baselines.

    It differs from Avalanche's IncrementalClassifier, whose parameter names and masks it has, in three ways: growth
    keeps dtype and ``requires_grad``, evaluation does not replace parameters, and no random number is drawn from the
    global generators.

    Shapes: features [B, D] -> logits [B, classes].
    """

    _per_class = ("classifier.weight", "classifier.bias")

    def __init__(self, in_features: int, initial_classes: int = 2):
        """Create the head; see ``ClassifierHead``."""
        super().__init__(in_features, initial_classes)
        self.classifier = nn.Linear(in_features, initial_classes, device="meta")
        starting = _starting_rows(0, initial_classes, in_features + 1)
        self.classifier.weight = nn.Parameter(starting[:, :-1].contiguous())
        self.classifier.bias = nn.Parameter(starting[:, -1].contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        return self._masked(self.classifier(features))

    def resize(self, num_classes: int) -> None:
        """As any head; the layer knows its size, too."""
        super().resize(num_classes)
        self.classifier.out_features = num_classes


class CosineHead(ClassifierHead):
    """Cosine classifier: logit of class c = ``scale`` * cos(feature, weight[c]); no bias.

    (Gidaris and Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018, arXiv 1804.09458.) The
    length of a row does not act on the logits, so classes trained later do not win by longer rows. Rows of new classes
    are *imprinted*: set to the mean of the unit-length features of their images (Qi, Brown and Lowe, "Low-Shot Learning
    with Imprinted Weights", CVPR 2018, arXiv 1712.07136), from where training goes on. The paper scales the mean to
    length 1 again; here it keeps its length, which changes no logit, only how far a step turns the row.

    Logits are computed in float32 or wider, under autocast and for half-precision models too.

    Shapes: features [B, D] -> logits [B, classes].

    Attributes:
        scale: Largest possible logit. With 16 a class can still reach a probability near 1 among hundreds.
        weight: Parameter [num_classes, D].
        imprinted: int8 [num_classes]; 1 for each class whose row was imprinted.
    """

    weight: nn.Parameter
    imprinted: Tensor
    _per_class = ("weight", "imprinted")

    def __init__(self, in_features: int, scale: float = 16.0, initial_classes: int = 2):
        """Create the head.

        Raises:
            ValueError: ``scale`` is not positive.
        """
        super().__init__(in_features, initial_classes)
        if not scale > 0:
            raise ValueError(f"scale of the cosine head must be positive, got {scale}")
        self.scale = scale
        starting = _starting_rows(0, initial_classes, in_features + 1)
        self.weight = nn.Parameter(starting[:, :-1].contiguous())
        self.register_buffer("imprinted", torch.zeros(initial_classes, dtype=torch.int8))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        with torch.autocast(device_type=features.device.type, enabled=False):
            cosines = functional.linear(unit_rows(features), unit_rows(self.weight))
        return self._masked(self.scale * cosines)

    def unimprinted(self, classes: Iterable[int]) -> list[int]:
        """Return those of ``classes`` whose rows were never imprinted."""
        return [label for label in classes if label >= self.num_classes or not self.imprinted[label]]

    @torch.no_grad()
    def imprint(self, features: Tensor, targets: Tensor) -> None:
        """Set the row of each class in ``targets`` to the mean of its unit-length features, and make it active.

        A class whose features are all zero keeps the row that it has: a zero row could never be trained.

        Args:
            features: [N, D], not normalised.
            targets: [N] class ids.

        Raises:
            ValueError: The shapes do not fit, a class id is negative, or a feature is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.in_features or targets.shape != features.shape[:1]:
            raise ValueError(
                f"imprinting needs features [N, {self.in_features}] and targets [N], "
                f"got {list(features.shape)} and {list(targets.shape)}"
            )
        if not features.isfinite().all():
            raise ValueError("imprinting met features that are not finite: the backbone or the images hold NaN or inf")
        classes: list[int] = targets.unique().tolist()
        if min(classes, default=0) < 0:
            raise ValueError(f"imprinting needs class ids of 0 or more, got {min(classes)}")
        self.activate(classes)
        directions = unit_rows(features)
        for label in classes:
            mean = directions[targets == label].mean(dim=0)
            if mean.any():
                self.weight[label] = mean
            self.imprinted[label] = 1


HEADS: dict[str, Callable[[int], ClassifierHead]] = {"cosine": CosineHead, "linear": LinearHead}
"""Heads by name; each takes the length of a feature vector."""
