"""TPGM, the predecessor of FTP: radii learned on held-out batches, in forward and backward passes of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.projection.radius import SMALLEST_RADIUS
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, gathered, summary_of_rows


class TPGM:
    """Keeps each tensor's rows in a ball around their anchor, and learns the balls' radii on other data.

    Tian, Dai, Ma, He, Liu, Kira, "Trainable Projected Gradient Method for Robust Fine-tuning", CVPR 2023, arXiv
    2303.10720, Algorithm 1, with what the code published for training with TPGM (DomainNet) does: radii start at half
    of the shortest row, are kept between 1e-8 and the longest row, and all share one Adam. Norms are L1, of rows for
    tensors of two or four dimensions; **all other tensors are projected element by element** (FTP takes biases and
    scales as one row). The code published for TPGM at the end of training differs: it takes rows of tensors of any
    dimension, and lengthens those that are shorter than their radius::

        tpgm = TPGM(weights, anchor)
        for batch in batches:
            ...; optimizer.step()
            tpgm.learn(next_held_out_loss)      # now and then
            tpgm.project()                      # after every step

    Args:
        weights: the parameters to project, by name; changed in place.
        anchor: W0 of each, in the same shape; copied.
        mu: Adam's step size for the radii, in units of a row's L1 norm; 1e-2 as published.

    Attributes:
        radii: one number for each tensor, in the order of `weights`; None before the first use.

    Raises:
        ValueError: if mu is not positive.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], anchor: Mapping[str, Tensor], *, mu: float = 1e-2) -> None:
        if not mu > 0:
            raise ValueError(f"mu={mu} is no step size: it must be above 0 (1e-2 as published).")
        self.weights = list(weights.values())
        self.anchor = [anchor[name].detach().clone() for name in weights]
        self.names = list(weights)
        self.mu = mu
        self.radii: Tensor | None = None
        self._adam: torch.optim.Adam | None = None

    def learn(self, next_loss: Callable[[], Tensor], iterations: int = 1) -> None:
        """Learn the radii for the present weights, which are afterwards as they were.

        Args:
            next_loss: the model's loss on the next held-out batch, as a tensor to be differentiated; the model should
                be in evaluation mode. `.grad` of the parameters is not touched.
            iterations: number of such batches; 1 as published in training, more where it is done once.

        Raises:
            ValueError: if a loss is not finite; the weights are then as before.
        """
        trained = [weight.detach().clone() for weight in self.weights]
        changes = [weight - anchor for weight, anchor in zip(trained, self.anchor, strict=True)]
        norms = [_norms(change) for change in changes]
        try:
            for _ in range(iterations):
                radii = self._bounded(norms)
                self._place(changes, norms)
                with torch.enable_grad():
                    loss = next_loss()
                    if not torch.isfinite(loss):
                        raise ValueError("The loss on the data for TPGM's radii is not finite.")
                    gradients = torch.autograd.grad(loss, self.weights, allow_unused=True)
                radii.grad = gathered(
                    [_derivative(*tensors) for tensors in zip(gradients, changes, norms, radii, strict=True)]
                )
                assert self._adam is not None
                self._adam.step()
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, trained, strict=True):
                    weight.copy_(value)

    @torch.no_grad()
    def project(self) -> None:
        """Shorten the rows of the present weights that are longer than their tensor's radius."""
        changes = [weight.detach() - anchor for weight, anchor in zip(self.weights, self.anchor, strict=True)]
        norms = [_norms(change) for change in changes]
        self._bounded(norms)
        self._place(changes, norms)

    def state_dict(self) -> dict[str, Any]:
        """Radii and their Adam state; weights and anchor are the caller's."""
        return {} if self._adam is None else {"radii": self.radii, "adam": self._adam.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, for the same weights in the same order."""
        if state_dict:
            self._start(state_dict["radii"].clone()).load_state_dict(state_dict["adam"])

    def _start(self, radii: Tensor) -> torch.optim.Adam:
        self.radii = radii
        self._adam = torch.optim.Adam([radii], lr=self.mu)
        return self._adam

    def summary(self) -> dict[str, dict[str, float]]:
        """Per tensor what `FTP.summary` gives, for its rows as TPGM takes them: radius, distances, boundary share."""
        if self.radii is None:
            return {}
        norms = [_norms(weight.detach() - anchor) for weight, anchor in zip(self.weights, self.anchor, strict=True)]
        return {
            name: summary_of_rows(radius, norm, norm >= radius * (1 - 1e-5))
            for name, norm, radius in zip(self.names, norms, self.radii.tolist(), strict=True)
        }

    @torch.no_grad()
    def _bounded(self, norms: list[Tensor]) -> Tensor:
        """The radii, started if they are new, within what the published code allows."""
        if self.radii is None:
            self._start(gathered([norm.min() / 2 for norm in norms]))
        assert self.radii is not None
        largest = gathered([norm.max() for norm in norms])
        self.radii.masked_fill_(self.radii <= 0, SMALLEST_RADIUS)
        self.radii.copy_(largest.where(self.radii > largest + NORM_EPSILON, self.radii))
        return self.radii

    @torch.no_grad()
    def _place(self, changes: list[Tensor], norms: list[Tensor]) -> None:
        assert self.radii is not None
        for weight, anchor, change, norm, radius in zip(
            self.weights, self.anchor, changes, norms, self.radii, strict=True
        ):
            ratio = (radius.to(norm.device) / (norm + NORM_EPSILON)).clamp_(max=1.0)
            torch.addcmul(anchor, change, ratio.to(change.dtype), out=weight)


def _norms(change: Tensor) -> Tensor:
    """L1 norms that broadcast over `change`, of its rows or of its elements; of half-precision tensors in float32."""
    precise = accumulation_dtype(change.dtype)
    if change.dim() in (2, 4):
        return change.abs().sum(dim=tuple(range(1, change.dim())), keepdim=True, dtype=precise)
    return change.abs().to(precise)


def _derivative(gradient: Tensor | None, change: Tensor, norms: Tensor, radius: Tensor) -> Tensor:
    """The loss's derivative by the radius, 0-d: rows inside the ball do not move with it."""
    if gradient is None:
        return torch.zeros_like(radius)
    lengths = norms + NORM_EPSILON
    dots = gradient.to(norms.dtype) * change
    return (dots / lengths).masked_fill_(lengths <= radius.to(norms.device), 0.0).sum().to(radius.dtype)
