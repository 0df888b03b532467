"""FlexMatch: FixMatch with a threshold per class that follows how much of it is learned."""

from typing import Any

from torch import Tensor

from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch
from ftp_cl.plugins.semi_supervised.fixmatch import FixMatch
from ftp_cl.plugins.semi_supervised.thresholds import FlexibleThresholds


class FlexMatch(FixMatch):
    """Curriculum pseudo-labelling (Zhang et al., NeurIPS 2021, arXiv 2110.08263).

    Arguments as ``FixMatch``, with the same published values; ``threshold`` is that of a class that is learned. Counts
    start anew in each experience.

    Attributes:
        thresholds: those of the experience; None before the first.
    """

    thresholds: FlexibleThresholds | None = None

    def begin(self, n_items: int, n_classes: int) -> None:
        """Start with thresholds of 0."""
        self.thresholds = FlexibleThresholds(n_items, n_classes, self.threshold)

    def method_state(self) -> dict[str, Any]:
        """Return the state of the thresholds."""
        return {} if self.thresholds is None else self.thresholds.state_dict()

    def restore_method_state(self, state: dict[str, Any]) -> None:
        """Take in the state of the thresholds."""
        assert self.thresholds is not None
        self.thresholds.load_state_dict(state)

    def accept(self, probabilities: Tensor, batch: UnlabelledBatch) -> Tensor:
        """Return which answers reach the threshold of their class."""
        assert self.thresholds is not None
        return self.thresholds.accept(probabilities, batch.indices)
