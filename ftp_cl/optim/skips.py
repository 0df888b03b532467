"""Learning of skipped steps without waiting for a GPU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection import Update
from ftp_cl.projection.radius import SKIPPED

STEPS_BETWEEN = 16
"""A GPU's counts are asked for once in so many steps."""


class SkipWatch:
    """Names the tensors in whose steps something was not finite: on CPU at once, on a GPU some steps later."""

    def __init__(self) -> None:
        self._steps = 0
        self._asked: list[tuple[list[str], Tensor, Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_steps": 0, "_asked": []}

    def names(self, steps: Sequence[tuple[Sequence[Update], Tensor]]) -> list[str]:
        """Of tensors that are known by now to have had a skipped step.

        Args:
            steps: tensors that were projected together, and which of them were skipped, shape [tensors].
        """
        found = []
        for updates, skipped in steps:
            if skipped.is_cpu and skipped.numpy().any():
                found += [update.name for update, bad in zip(updates, skipped.numpy(), strict=True) if bad]
        on_gpu = [updates for updates, skipped in steps if skipped.is_cuda]
        if not on_gpu or torch.cuda.is_current_stream_capturing():
            return found
        if self._asked and all(event.query() for _, _, event in self._asked):
            for names, counts, _ in self._asked:
                found += [name for name, count in zip(names, counts.numpy(), strict=True) if count]
            self._asked = []
        if self._steps % STEPS_BETWEEN == 0 and not self._asked:
            self._asked = [self._ask(updates) for updates in on_gpu]
        self._steps += 1
        return found

    @staticmethod
    def _ask(updates: Sequence[Update]) -> tuple[list[str], Tensor, Any]:
        counts = torch.stack([update.state.numbers for update in updates])[:, SKIPPED]
        host = torch.empty(counts.shape, dtype=counts.dtype, device="cpu", pin_memory=True)
        host.copy_(counts, non_blocking=True)
        with torch.cuda.device(counts.device):
            event = torch.cuda.Event()
            event.record()
        return [update.name for update in updates], host, event
