"""Several heads that decide together, also on the features of two backbones."""

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models import DynamicModule
from torch import Tensor, nn
from torch.nn import functional

from ftp_cl.models.heads import MASK_VALUE, ClassifierHead


class EnsembleHead(DynamicModule):
    """The weighted mean of the standardised logits of several heads.

    Logits of heads of different kinds (cosines, log-posteriors) have no common scale, so for each image and head they
    are brought to mean 0 and standard deviation 1 over the classes seen. Classes that one of the heads has not seen
    are masked.

    Shapes: features [B, D] -> logits [B, classes].
    """

    def __init__(
        self, heads: Sequence[ClassifierHead], num_features: Sequence[int], weights: Sequence[float] | None = None
    ):
        """Put heads together.

        Args:
            heads: each sees its own columns of the features, one after another; all of the same classes.
            num_features: how many columns each takes; heads with a 0 share those of the head before.
            weights: of each in the mean, above 0; all alike by default.

        Raises:
            ValueError: The lists differ in length or are empty, the first head takes no columns, or a weight is not
                above 0.
        """
        super().__init__()
        if len(heads) != len(num_features) or not heads or not num_features[0]:
            raise ValueError(f"{len(heads)} heads need as many numbers of features, the first above 0: {num_features}")
        self.weights = [1.0] * len(heads) if weights is None else list(weights)
        if len(self.weights) != len(heads) or not all(weight > 0 for weight in self.weights):
            raise ValueError(f"{len(heads)} heads need as many weights above 0: {weights}")
        self.heads: Any = nn.ModuleList(heads)
        self._columns: list[slice] = []
        end = 0
        for width in num_features:
            self._columns.append(slice(end, end + width) if width else self._columns[-1])
            end += width

    def adaptation(self, experience: CLExperience) -> None:
        """Let all heads make room for the classes of ``experience``.

        Raises:
            RuntimeError: in training mode: standardised logits are there to decide, not to be trained.
        """
        if self.training:
            raise RuntimeError(
                "This model is the ensemble that LDAEnsemble made of it for evaluation: train it with the same plugin, "
                "which gives the model its own head back."
            )
        for head in self.heads:
            head.adaptation(experience)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits [B, classes] of features [B, D]."""
        logits = [head(features[:, columns]) for head, columns in zip(self.heads, self._columns, strict=True)]
        classes = max(part.shape[1] for part in logits)
        seen = torch.ones(classes, dtype=torch.bool, device=features.device)
        for head in self.heads:
            seen &= functional.pad(head.active_units, (0, classes - len(head.active_units))).bool()
        opinions = [_standardised(part[:, seen[: part.shape[1]]]) for part in logits]
        weighted = [weight * opinion for weight, opinion in zip(self.weights, opinions, strict=True)]
        mean = torch.stack(weighted).sum(dim=0) / sum(self.weights)
        return mean.new_full((len(features), classes), MASK_VALUE).masked_scatter(seen, mean)


def _standardised(logits: Tensor) -> Tensor:
    # A power of two changes no digit, and the squares of large log-posteriors do not overflow.
    logits = torch.ldexp(logits, -torch.frexp(logits.abs().amax(dim=1, keepdim=True)).exponent)
    deviation = logits.std(dim=1, correction=0, keepdim=True).clamp_min(torch.finfo(logits.dtype).eps)
    return (logits - logits.mean(dim=1, keepdim=True)) / deviation


class TwoBackbones(nn.Module):
    """Features of two backbones beside each other.

    Shapes: images -> [B, D1 + D2].
    """

    def __init__(self, first: nn.Module, second: nn.Module):
        """Put the two together."""
        super().__init__()
        self.first, self.second = first, second

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of both."""
        return torch.cat([self.first(images), self.second(images)], dim=1)
