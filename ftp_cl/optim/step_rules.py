"""Rules around an anchor in every step of any torch optimizer: a decay, a fixed ball, a projected gradient."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ftp_cl.optim.checks import stepping
from ftp_cl.optim.step_hooks import is_outermost
from ftp_cl.projection.rows import per_row, row_norms

_SMALLEST_DISTANCE = 1e-12


class StepRule(Protocol):
    """What happens to one tensor in one step."""

    def before(self, weights: Tensor, anchor: Tensor, gradient: Tensor) -> Any:
        """Look at the weights that the optimizer is about to change, or change the gradient in place.

        What is returned goes to `after`.
        """

    def after(self, weights: Tensor, anchor: Tensor, seen: Any) -> None:
        """Change the optimizer's new weights in place."""


class SelectiveDecay:
    """Selective projection decay (SPD): weights decay towards the anchor where the step has led away from it.

    Tian, Huang, Kira, "Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models", NeurIPS 2024, arXiv
    2411.01713, Algorithm 1, as in the published AdamSPD. With W the weights before the step, W~ those after it, W0 the
    anchor, g the gradient, and Euclidean norms of the whole tensor::

        if <g, W - W0> > 0:  W~ <- W~ - weight_decay * r * (W~ - W0),
        r = max(0, |W~ - W0| - |W - W0|) / |W~ - W0|

    that is where the plain gradient points back to the anchor and momentum has nevertheless carried the tensor on.

    Args:
        weight_decay: lambda. 1 returns such a tensor to the distance that it had before the step.

    Raises:
        ValueError: if `weight_decay` is negative.
    """

    def __init__(self, weight_decay: float = 1.0) -> None:
        if weight_decay < 0:
            raise ValueError(f"weight_decay={weight_decay} must be at least 0.")
        self.weight_decay = weight_decay

    def before(self, weights: Tensor, anchor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the gradient points back to the anchor, and how far the weights are from it; both 0-d."""
        change = weights - anchor
        return (gradient * change).sum() > 0, torch.linalg.vector_norm(change)

    def after(self, weights: Tensor, anchor: Tensor, seen: tuple[Tensor, Tensor]) -> None:
        """Decay the part of the change that this step has added. No value is read back from the device."""
        points_back, distance_before = seen
        change = weights - anchor
        distance = torch.linalg.vector_norm(change)
        grown = ((distance - distance_before) / distance.clamp_min(_SMALLEST_DISTANCE)).clamp(0, 1)
        weights.sub_(change.mul_(grown * points_back * self.weight_decay))


class FixedRadius:
    """Every row stays within the same L1 distance of its anchor: FTP without learned radii.

    MARS-PGM: Gouk, Hospedales, Pontil, "Distance-Based Regularisation of Deep Networks for Fine-Tuning", ICLR 2021,
    arXiv 2002.08253, with the rows projected one by one, as TPGM (arXiv 2303.10720) and FTP do, where that paper scales
    all rows of a tensor by the factor of the longest.

    Args:
        radius: gamma of all tensors, in units of a row's L1 norm.

    Raises:
        ValueError: if `radius` is negative.
    """

    def __init__(self, radius: float) -> None:
        if radius < 0:
            raise ValueError(f"radius={radius} must be at least 0.")
        self.radius = radius

    def before(self, weights: Tensor, anchor: Tensor, gradient: Tensor) -> None:
        """Nothing: the ball does not depend on the step."""

    def after(self, weights: Tensor, anchor: Tensor, seen: None) -> None:
        """Shorten the rows that are too long."""
        change = weights - anchor
        ratio = (self.radius / row_norms(change)).clamp_(max=1.0)
        torch.addcmul(anchor, change, per_row(ratio.to(change.dtype), change), out=weights)


@dataclass
class Strength:
    """How strongly the gradient of one tensor is projected, and what the next step learns that from.

    Attributes:
        numbers: omega, the running means of its derivatives and of their squares, and t, the steps in which the tensor
            had a finite gradient; shape [4], float32.
        projected: p, the part of the last of these gradients along the change, in the tensor's shape and in float32
            or wider.
    """

    numbers: Tensor
    projected: Tensor

    def learn(self, gradient: Tensor, mu: float, is_finite: Tensor) -> None:
        """A step of Adam along the derivative of the loss by omega; none where the gradient is not finite.

        Without a projected gradient, at the first step above all, the derivative is 0.
        """
        lengths = torch.linalg.vector_norm(gradient) * torch.linalg.vector_norm(self.projected)
        derivative = (gradient * self.projected).sum() / lengths
        derivative = derivative.where(derivative.isfinite(), 0.0)
        omega, first, second, steps = self.numbers.unbind()
        steps = steps + 1  # of which the first counts in Adam's corrections, as in FTP's published code
        first, second = 0.9 * first + 0.1 * derivative, 0.999 * second + 0.001 * derivative.square()
        mean, deviation = first / (1 - 0.9**steps), (second / (1 - 0.999**steps)).sqrt()
        omega = (omega - mu * mean / (deviation + 1e-8)).clamp(0, 1)
        new = torch.stack([omega, first, second, steps]).to(self.numbers.dtype)
        self.numbers.copy_(new.where(is_finite, self.numbers))


class DirectionalProjection:
    """Directional gradient projection (DiGraP): a gradient loses part of what leads straight away from the anchor.

    Huang, Tian, Maneechotesuwan, Chopra, Kira, "Directional Gradient Projection for Robust Fine-Tuning of Foundation
    Models", ICLR 2025, arXiv 2502.15895, Algorithm 1, with any optimizer where the paper has Adam. For each tensor,
    with weights W, anchor W0, gradient g, and c = W - W0::

        p = <g, c> / |c|^2 c
        if <g, c> < 0:  g <- g - omega p

    so that omega = 1 leaves only what is orthogonal to the change. omega begins at 0 and takes a step of Adam in
    [0, 1] along the loss's derivative by it, <g, p of the step before>, which is divided by the lengths of both: the
    paper normalises it, and the source that was at hand does not say how.

    `.grad` is changed in place, as by clipping. A step with a gradient that is not finite changes no omega. The rule
    keeps omega and a copy of each weight's size (p) from step to step: use one rule for one set of anchors. States of
    the optimizer do not have them; those of `DiGraPPlugin` do.

    Args:
        mu: Adam's step size for omega: it grows by about as much in a step. The paper tunes it; 1e-2 is FTP's.

    Attributes:
        strengths: parameter -> its `Strength`, of those that have had a step.

    Raises:
        ValueError: if `mu` is negative or not finite.
    """

    def __init__(self, mu: float = 1e-2) -> None:
        if not 0 <= mu < math.inf:
            raise ValueError(f"mu={mu} must be at least 0 and finite.")
        self.mu = mu
        self.strengths: dict[Tensor, Strength] = {}

    def before(self, weights: Tensor, anchor: Tensor, gradient: Tensor) -> None:
        """Learn omega and project the gradient in place. No value is read back from the device."""
        wide = torch.promote_types(weights.dtype, torch.float32)
        change, own = weights.to(wide) - anchor.to(wide), gradient.to(wide)
        product = (own * change).sum()
        projected = change.mul_(product / change.square().sum().clamp_min(_SMALLEST_DISTANCE**2))
        strength = self.strengths.get(weights)
        if strength is None or strength.projected.shape != weights.shape:
            strength = Strength(torch.zeros(4, device=weights.device), torch.zeros_like(projected))
        strength = Strength(strength.numbers.to(weights.device), strength.projected.to(weights.device))
        self.strengths[weights] = strength
        is_finite = product.isfinite()
        strength.learn(own, self.mu, is_finite)
        strength.projected.copy_(projected.where(is_finite, strength.projected))
        gradient.sub_((projected * strength.numbers[0]).where(product < 0, 0.0).to(gradient.dtype))

    def after(self, weights: Tensor, anchor: Tensor, seen: None) -> None:
        """Nothing: the optimizer's step is taken as it is."""


class AnchoredSteps:
    """Applies a rule to chosen tensors in each `optimizer.step()`, through torch's own step hooks.

        anchors = {p: p.detach().clone() for p in backbone.parameters()}
        steps = AnchoredSteps(SelectiveDecay(), anchors).attach(optimizer)

    Tensors without a gradient in a step are left alone. Gradients are those that `step()` finds: a closure that
    computes them inside the step is not supported.

    Args:
        rule: `SelectiveDecay`, `FixedRadius`, `DirectionalProjection`, or another `StepRule`.
        anchors: the anchor of each parameter, in the same shape; copied. They follow their parameters to another device
            or dtype.
    """

    def __init__(self, rule: StepRule, anchors: Mapping[nn.Parameter, Tensor]) -> None:
        self.rule = rule
        self.anchors = {weights: anchor.detach().clone() for weights, anchor in anchors.items()}
        self._handles: list[Any] = []
        self._seen: dict[nn.Parameter, Any] = {}

    def attach(self, optimizer: Optimizer) -> Self:
        """Follow the steps of this optimizer, one that `FTP.attach` takes; returns self.

        Raises:
            TypeError: as `FTP.attach`.
        """
        optimizer = stepping(optimizer)
        self.detach()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        return self

    def detach(self) -> None:
        """Leave the optimizer as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_outermost(optimizer):
            return
        self.anchors = {weights: anchor.to(weights) for weights, anchor in self.anchors.items()}
        self._seen = {
            weights: self.rule.before(weights, anchor, weights.grad)
            for weights, anchor in self.anchors.items()
            if weights.grad is not None
        }

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not is_outermost(optimizer):
            return
        seen, self._seen = self._seen, {}
        for weights, value in seen.items():
            self.rule.after(weights, self.anchors[weights], value)
