"""Which pseudo-labels are good enough: thresholds that follow the model, without Avalanche."""

import torch
from torch import Tensor


class FlexibleThresholds:
    """A threshold per class that is lower the fewer images are learned of it so far.

    sigma(c) counts the unlabelled images whose latest confident prediction is c;
    beta(c) = sigma(c) / max(max sigma, N - sum sigma); threshold(c) = beta(c) / (2 - beta(c)) * ``threshold``.
    FlexMatch, section 3 (Zhang et al. 2021, arXiv 2110.08263). The thresholds begin at 0.

    Args:
        n_items: N, how many unlabelled images there are.
        n_classes: C.
        threshold: of a class that is learned.

    Attributes:
        labels: [N]; the latest confident prediction of each image, -1 for none.
    """

    def __init__(self, n_items: int, n_classes: int, threshold: float) -> None:
        self.threshold = threshold
        self.n_classes = n_classes
        self.labels = torch.full((n_items,), -1, dtype=torch.long)

    def thresholds(self) -> Tensor:
        """Return the threshold of each class [C]."""
        learned = torch.bincount(self.labels[self.labels >= 0], minlength=self.n_classes)
        beta = learned / max(int(learned.max()), len(self.labels) - int(learned.sum()), 1)
        return beta / (2 - beta) * self.threshold

    def state_dict(self) -> dict[str, Tensor]:
        """Return the latest predictions."""
        return {"labels": self.labels}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take in what ``state_dict`` returned."""
        self.labels = state["labels"]

    def accept(self, probabilities: Tensor, indices: Tensor) -> Tensor:
        """Return which predictions pass [B], by the thresholds from before this batch; then count them.

        Args:
            probabilities: of the weak views [B, C].
            indices: which images they are [B].
        """
        confidence, labels = probabilities.max(1)
        passed = confidence >= self.thresholds().to(confidence)[labels]
        sure = (confidence >= self.threshold).cpu()
        self.labels[indices.cpu()[sure]] = labels.cpu()[sure]
        return passed


class AdaptiveThresholds:
    """A threshold per class from the model's own mean confidence: nothing to tune.

    tau = running mean of the batch's mean confidence; p = running mean of its mean probabilities; both begin at 1 / C;
    threshold(c) = p(c) / max p * tau. FreeMatch, section 4.1 (Wang et al. 2023, arXiv 2205.07246).

    Args:
        n_classes: C.
        momentum: of the running means, 0.999 as published: thresholds take thousands of steps to rise.

    Attributes:
        confidence: tau.
        mean_probability: p [C].
        label_share: running histogram [C] of the predictions, for ``fairness_loss``.
    """

    def __init__(self, n_classes: int, momentum: float = 0.999) -> None:
        self.momentum = momentum
        self.confidence = torch.tensor(1 / n_classes)
        self.mean_probability = torch.full((n_classes,), 1 / n_classes)
        self.label_share = torch.full((n_classes,), 1 / n_classes)

    def thresholds(self) -> Tensor:
        """Return the threshold of each class [C]."""
        return self.mean_probability / self.mean_probability.max() * self.confidence

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running means."""
        return {name: getattr(self, name) for name in ("confidence", "mean_probability", "label_share")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take in what ``state_dict`` returned."""
        vars(self).update(state)

    def accept(self, probabilities: Tensor) -> Tensor:
        """Update the running means by a batch of weak views' probabilities [B, C]; return which pass [B]."""
        confidence, labels = probabilities.max(1)
        histogram = torch.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
        self.confidence = self._moved(self.confidence, confidence.mean())
        self.mean_probability = self._moved(self.mean_probability, probabilities.mean(0))
        self.label_share = self._moved(self.label_share, histogram)
        return confidence >= self.thresholds()[labels]

    def _moved(self, running: Tensor, current: Tensor) -> Tensor:
        return torch.lerp(current, running.to(current), self.momentum)
