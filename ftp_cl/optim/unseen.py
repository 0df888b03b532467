"""Whether weights change without FTP's seeing it."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.projection.checks import problem_of


class UnseenSteps:
    """Finds tensors that have changed since `remember` and have no state yet."""

    def __init__(self) -> None:
        self._samples: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_samples": {}}

    def remember(self, projected: Mapping[str, nn.Parameter], known: Collection[str]) -> None:
        """Take samples of the tensors that are to be projected; `known` have a state."""
        self._samples = {
            name: _sample(parameter)
            for name, parameter in projected.items()
            if parameter.requires_grad and name not in known and problem_of(parameter) is None
        }

    def forget(self) -> None:
        """Find nothing until they are remembered anew."""
        self._samples.clear()

    def changed(self, projected: Mapping[str, nn.Parameter], known: Collection[str]) -> list[str]:
        """Names of those without a state that differ now, not only in device or dtype."""
        found = []
        for name in (name for name in projected if name in self._samples and name not in known):
            sample = self._samples[name]
            now = _sample(projected[name]).to(sample.device)
            if now.dtype == sample.dtype and not torch.allclose(now, sample, rtol=0, atol=0, equal_nan=True):
                found.append(name)
        return found


def _sample(weights: Tensor) -> Tensor:
    """Copies of up to about two thousand of the elements."""
    return weights.detach().flatten()[:: max(1, weights.numel() // 1024)].clone()
