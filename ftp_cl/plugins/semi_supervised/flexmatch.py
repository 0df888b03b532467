"""FlexMatch: FixMatch with a threshold per class that follows how much of it is learned."""

from torch import Tensor

from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch
from ftp_cl.plugins.semi_supervised.fixmatch import FixMatch
from ftp_cl.plugins.semi_supervised.thresholds import FlexibleThresholds


class FlexMatch(FixMatch):
    """Curriculum pseudo-labelling (Zhang et al., NeurIPS 2021, arXiv 2110.08263).

    Arguments as ``FixMatch``, with the same published values; ``threshold`` is that of a class that is learned. Counts
    start anew in each experience.

    Attributes:
        thresholds: the `FlexibleThresholds` of the experience; None before the first.
    """

    def begin(self, n_items: int, n_classes: int) -> None:
        """Start with thresholds of 0."""
        self.thresholds = FlexibleThresholds(n_items, n_classes, self.threshold)

    def accept(self, probabilities: Tensor, batch: UnlabelledBatch) -> Tensor:
        """Return which answers reach the threshold of their class."""
        return self.thresholds.accept(probabilities, batch.indices)
