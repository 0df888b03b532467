"""FreeMatch: thresholds from the model's own confidence, and a pull towards using all classes."""

from typing import Any

from torch import Tensor

from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch
from ftp_cl.plugins.semi_supervised.fixmatch import FixMatch
from ftp_cl.plugins.semi_supervised.losses import fairness_loss
from ftp_cl.plugins.semi_supervised.thresholds import AdaptiveThresholds


class FreeMatch(FixMatch):
    """Self-adaptive thresholds and fairness (Wang et al., ICLR 2023, arXiv 2205.07246).

    Args:
        fairness: weight of the fairness loss beside the other; 0.01 as published (0.001 to 0.05 by data set).
        momentum: of the running means behind the thresholds; 0.999 as published. Experiences of some hundred
            iterations need less, 0.9 say: thresholds start at 1 / classes.
        options: as ``FixMatch``, but for ``threshold``.

    Attributes:
        thresholds: the `AdaptiveThresholds` of the experience; None before the first.

    Raises:
        ValueError: if ``fairness`` is negative, ``momentum`` is not in [0, 1), ``threshold`` is given, and as
            ``FixMatch``.
    """

    def __init__(self, *, fairness: float = 0.01, momentum: float = 0.999, **options: Any) -> None:
        super().__init__(**options)
        if "threshold" in options:
            raise ValueError("FreeMatch finds its thresholds by itself: leave threshold out, or use FixMatch.")
        if not fairness >= 0:
            raise ValueError(f"fairness={fairness} must be 0 or more.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must lie between 0 and 1, 1 excluded.")
        self.fairness = fairness
        self.momentum = momentum

    def begin(self, n_items: int, n_classes: int) -> None:
        """Start with thresholds of 1 / classes."""
        self.thresholds = AdaptiveThresholds(n_classes, self.momentum)

    def accept(self, probabilities: Tensor, batch: UnlabelledBatch) -> Tensor:
        """Return which answers reach the threshold of their class, this batch taken into account."""
        return self.thresholds.accept(probabilities)

    def strong_loss(self, logits: Tensor, labels: Tensor, used: Tensor) -> Tensor:
        """Return the loss of FixMatch and the weighted fairness loss."""
        fairness = fairness_loss(logits, used, self.thresholds.mean_probability, self.thresholds.label_share)
        return super().strong_loss(logits, labels, used) + self.fairness * fairness
