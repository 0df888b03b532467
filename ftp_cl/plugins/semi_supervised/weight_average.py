"""The exponential moving average (EMA) of a model's weights within one experience."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = list[Tensor] | tuple[Tensor, ...]


class WeightAverage:
    """An EMA of the weights, on torch's ``AveragedModel``; buffers are those of the model.

    The first steps are averaged evenly: the decay is min(``decay``, 1 - 1 / (n + 1)) at the n-th, as in Mean Teacher's
    published code. A fixed decay would keep the average near where it started for 1 / (1 - decay) steps. Where training
    is shorter than that, the average is the plain mean of all weights since the start: choose a smaller decay to
    evaluate something nearer to the last ones.

    While a model trains it has its own weights; between epochs, and whenever it is evaluated, it has the average, so
    that who keeps the weights of the best epoch (`EarlyStoppingPlugin`) keeps those that were evaluated.

    Heads grow between experiences, and an average over tensors of two shapes does not exist. So each experience makes a
    new one, and at its end the model adopts the average: what was evaluated is what training goes on from.

    Args:
        model: what to average; a copy of it holds the average.
        decay: in [0, 1).

    Attributes:
        is_shown: whether the model has the averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._averaged = AveragedModel(model).eval()
        self._averaged.multi_avg_fn = partial(_average, decay=decay, count=self._averaged.n_averaged)
        self.is_shown = False

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights, in evaluation mode."""
        return self._averaged.module

    def update(self, model: nn.Module) -> None:
        """Take in the weights after one optimizer step."""
        self._averaged.update_parameters(model)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the weights of the model and the averaged ones, in place; twice is as before."""
        self.is_shown = not self.is_shown
        for average, weight in zip(self._averaged.module.parameters(), model.parameters(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and how many were averaged; buffers follow the model."""
        weights = [average.detach().clone() for average in self._averaged.module.parameters()]
        return {"weights": weights, "n_averaged": int(self._averaged.n_averaged)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take in what ``state_dict`` returned."""
        for average, weight in zip(self._averaged.module.parameters(), state["weights"], strict=True):
            average.copy_(weight)
        self._averaged.n_averaged.fill_(state["n_averaged"])


@torch.no_grad()
def _average(averages: Tensors, weights: Tensors, n_averaged: Tensor | int, *, decay: float, count: Tensor) -> None:
    """The averaging step. `count` is `n_averaged` on the CPU, where it can be read without waiting for a GPU."""
    torch._foreach_lerp_(averages, weights, 1 - min(decay, 1 - 1 / (int(count) + 1)))
