"""Methods that act around an anchor in every optimizer step, by other means than FTP: SPD, MARS-PGM, DiGraP."""

from dataclasses import asdict
from typing import Any

import torch

from ftp_cl.optim import AnchoredSteps, DirectionalProjection, FixedRadius, SelectiveDecay
from ftp_cl.optim.adapters import has_factors
from ftp_cl.optim.checks import followers
from ftp_cl.optim.names import Exclude
from ftp_cl.optim.step_rules import StepRule, Strength
from ftp_cl.plugins.anchor import Anchor, AnchoredPlugin, not_excluded
from ftp_cl.plugins.ftp import optimizer_of, refuse_without_steps


class _PluginsSteps(AnchoredSteps):
    """To be told from those that a user attaches."""


class AnchoredStepPlugin(AnchoredPlugin):
    """Applies a rule of `ftp_cl.optim.step_rules` around the anchor in every optimizer step.

    Args:
        rule: `SelectiveDecay` (SPD), `FixedRadius` (MARS-PGM) or `DirectionalProjection` (DiGraP).
        anchor: see `AnchoredPlugin`.
        exclude: see `AnchoredPlugin`.
    """

    def __init__(self, rule: StepRule, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(anchor, exclude)
        self.rule = rule
        self._steps: _PluginsSteps | None = None

    def begin(self, strategy: Any) -> None:
        """Let go: the anchored weights are others."""
        self._detach()

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Follow the optimizer; after a resume, too, only now: hooks run in the order in which plugins attach here."""
        super().before_training_iteration(strategy, **kwargs)
        if self._steps is not None:
            return
        refuse_without_steps(strategy, type(self).__name__)
        optimizer = optimizer_of(strategy)
        if optimizer is None:
            raise TypeError(f"{type(strategy).__name__} has no optimizer whose steps could be followed.")
        others = [plugin._steps for plugin in strategy.plugins if isinstance(plugin, AnchoredStepPlugin)]
        for steps in followers(optimizer, _PluginsSteps):
            if steps not in others:
                steps.detach()  # of a strategy whose training was interrupted
        anchors = {weight: self.anchor_weights[name] for name, weight in self.weights.items()}
        self._steps = _PluginsSteps(self.rule, anchors).attach(optimizer)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go: the next experience may bring other parameters, and hooks survive no copy."""
        self._detach()

    def _detach(self) -> None:
        if self._steps is not None:
            self._steps.detach()
            self._steps = None


class SPDPlugin(AnchoredStepPlugin):
    """Selective projection decay: see `ftp_cl.optim.SelectiveDecay`, which names the paper.

    With Adam or AdamW without weight decay it is the published AdamSPD, around the anchor of each experience and
    without the head, whose rows for new classes have no anchor. The factors of peft's adapters decay towards 0, as the
    paper has it, each by itself.

    Args:
        weight_decay: lambda; 1 returns a tensor to the distance that it had before the step, more pulls it further.
        anchor: see `AnchoredPlugin`; "initial" is the paper's choice, which knows one task.
        exclude: see `AnchoredPlugin`.
    """

    def __init__(self, weight_decay: float = 1.0, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(SelectiveDecay(weight_decay), anchor, exclude)

    def begin(self, strategy: Any) -> None:
        """Anchor adapters at 0."""
        self.anchor_weights.update(
            {name: torch.zeros_like(weight) for name, weight in self.weights.items() if has_factors([name])}
        )
        super().begin(strategy)


class FixedRadiusPlugin(AnchoredStepPlugin):
    """Projection onto balls of one given radius: see `ftp_cl.optim.FixedRadius`, which names the paper (MARS-PGM).

    Args:
        radius: gamma, in units of a row's L1 norm.
        anchor: see `AnchoredPlugin`.
        exclude: see `AnchoredPlugin`.
    """

    def __init__(self, radius: float, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(FixedRadius(radius), anchor, exclude)


class DiGraPPlugin(AnchoredStepPlugin):
    """Directional gradient projection: see `ftp_cl.optim.DirectionalProjection`, which names the paper.

    Strengths start again whenever the anchor moves.

    Args:
        mu: step size of the strengths; 1e-2.
        anchor: see `AnchoredPlugin`; "initial" is the paper's choice, which knows one task.
        exclude: see `AnchoredPlugin`.
    """

    rule: DirectionalProjection

    def __init__(self, mu: float = 1e-2, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(DirectionalProjection(mu), anchor, exclude)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of anchor and strengths if the anchor is to move."""
        super().before_training_exp(strategy, **kwargs)
        if self._moved:
            self.rule.strengths.clear()

    def strengths(self) -> dict[str, float]:
        """How strongly each tensor's gradients are projected, by name.

        0 leaves them alone, 1 leaves what is orthogonal to the change.
        """
        return {name: strength.numbers[0].item() for name, strength in self._strengths().items()}

    def state_dict(self) -> dict[str, Any]:
        """The strengths, too."""
        strengths = {name: asdict(strength) for name, strength in self._strengths().items()}
        return {**super().state_dict(), "strengths": strengths}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        candidates = not_excluded(strategy.model, self.exclude)
        self.rule.strengths = {candidates[name]: Strength(**own) for name, own in state["strengths"].items()}

    def _strengths(self) -> dict[str, Strength]:
        known = self.rule.strengths
        return {name: known[weight] for name, weight in self.weights.items() if weight in known}
