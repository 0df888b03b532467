"""Methods that keep weights near an anchor, by other means than FTP: penalties, SPD, fixed radius, TPGM, WiSE-FT."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftp_cl.models.imprinting import evaluating
from ftp_cl.optim import TPGM, AnchoredSteps, FixedRadius, SelectiveDecay, l2_sp, mars_sp
from ftp_cl.optim.adapter_kinds import Adapter, adapters_in
from ftp_cl.optim.adapters import has_factors
from ftp_cl.optim.checks import followers
from ftp_cl.optim.names import Exclude
from ftp_cl.optim.next_adapter import keep_changes
from ftp_cl.optim.penalties import l2_of_adapters
from ftp_cl.optim.step_rules import StepRule
from ftp_cl.plugins.anchor import Anchor, AnchoredPlugin
from ftp_cl.plugins.ftp import optimizer_of, refuse_without_steps
from ftp_cl.plugins.radius_data import check_source, endless_losses, radius_dataset
from ftp_cl.plugins.stages import begins, refuse_hidden, refuse_inner_updates, refuse_parts

_PENALTIES = {"l2_sp": l2_sp, "mars_sp": mars_sp}


class AnchorPenalty(AnchoredPlugin):
    """Adds a penalty on the distance from the anchor to the loss: L2-SP or MARS-SP.

    L2-SP of peft's LoRA and VeRA is that of the change which they make of a weight, around no change: when the anchor
    moves, what they have learned is kept first (`ftp_cl.optim.next_adapter`). MARS-SP acts on their factors one by one.

    Args:
        penalty: "l2_sp" (`ftp_cl.optim.l2_sp`) or "mars_sp" (`ftp_cl.optim.mars_sp`), which name their papers.
        alpha: its factor. For L2-SP the paper tries 0.001 to 1.
        beta: factor of half the squared length of what has no anchor (the head); 0.01 in the L2-SP paper.
        anchor: see `AnchoredPlugin`; "initial" is the papers' choice, which know one task.
        exclude: see `AnchoredPlugin`.

    Raises:
        ValueError: for an unknown penalty or a negative factor.
    """

    def __init__(
        self,
        penalty: Literal["l2_sp", "mars_sp"] = "l2_sp",
        alpha: float = 0.1,
        beta: float = 0.0,
        anchor: Anchor = "previous",
        exclude: Exclude = "head",
    ) -> None:
        super().__init__(anchor, exclude)
        if penalty not in _PENALTIES:
            raise ValueError(f"penalty={penalty!r} is unknown; choose one of {', '.join(_PENALTIES)}.")
        if alpha < 0 or beta < 0:
            raise ValueError(f"alpha={alpha} and beta={beta} must both be at least 0.")
        self.penalty, self.alpha, self.beta = penalty, alpha, beta
        self._adapters: list[Adapter] = []
        self._alone: dict[str, nn.Parameter] = {}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the anchor if it is to move."""
        refuse_inner_updates(strategy, "AnchorPenalty")
        super().before_training_exp(strategy, **kwargs)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Let adapters keep what they have learned if the anchor moves, and take it."""
        if not self._begun and self._moved and self.penalty == "l2_sp":
            keep_changes(strategy.model, _products(strategy.model), None)
        super().before_training_iteration(strategy, **kwargs)

    def begin(self, strategy: Any) -> None:
        """Find the adapters among the anchored tensors."""
        anchored = set(self.weights.values())
        found = _products(strategy.model) if self.penalty == "l2_sp" else []
        self._adapters = [adapter for adapter in found if anchored.issuperset(adapter.factors())]
        factors = {factor for adapter in self._adapters for factor in adapter.factors()}
        self._alone = {name: weight for name, weight in self.weights.items() if weight not in factors}

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        strategy.loss += self.alpha * _PENALTIES[self.penalty](self._alone, self.anchor_weights)
        strategy.loss += self.alpha * l2_of_adapters(self._adapters)
        if self.beta:
            anchored = set(self._candidates.values())
            free = {n: p for n, p in strategy.model.named_parameters() if p.requires_grad and p not in anchored}
            strategy.loss += self.beta * l2_sp(free, defaultdict(float))  # type: ignore[arg-type]  # anchor 0


def _products(model: nn.Module) -> list[Adapter]:
    """The trained adapters whose change is one product."""
    found = (adapter for adapter in adapters_in(model) if isinstance(adapter, Adapter) and adapter.is_trained)
    return [adapter for adapter in found if len(adapter.pairs()) == 1]


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


class TPGMPlugin(AnchoredPlugin):
    """Trainable projected gradient method: see `ftp_cl.optim.TPGM`, which names the paper.

    Radii start again whenever the anchor moves. A radius learned at the end alone with FTP's rows and start is
    `FTPPlugin(when="experience")`.

    Args:
        when: "step": project after every iteration, as published. "experience": training is free, and the change is
            projected once, when it ends.
        proj_freq: with when="step", learn the radii in every so many iterations, the first included; 1 as published.
        iterations: held-out batches each time; 1 as published for when="step", 50 to 200 for when="experience".
        mu: step size of the radii; 1e-2 as published.
        radius_data: where held-out batches come from. "held_out": a share of each experience's training images, which
            are then not trained on. Or as in `FTPPlugin`: "validation", "train" or "replay". The paper takes its
            validation set and trains on all training images; here it also chooses hyper-parameters: hence the default,
            which costs training images.
        held_out: that share of each class, in (0, 1), rounded, but at least one image of a class that has two.
        anchor: see `AnchoredPlugin`.
        exclude: see `AnchoredPlugin`.

    Attributes:
        tpgm: the `TPGM` of this experience, with `radii` and `summary()`.

    Raises:
        ValueError: for wrong arguments, or an experience with no image to hold out.
    """

    def __init__(
        self,
        when: Literal["step", "experience"] = "step",
        proj_freq: int = 1,
        iterations: int = 1,
        mu: float = 1e-2,
        radius_data: Literal["held_out", "validation", "train", "replay"] = "held_out",
        held_out: float = 0.2,
        anchor: Anchor = "previous",
        exclude: Exclude = "head",
    ) -> None:
        super().__init__(anchor, exclude)
        if when not in ("step", "experience"):
            raise ValueError(f"when={when!r} is unknown; choose 'step' or 'experience'.")
        if proj_freq < 1 or iterations < 1:
            raise ValueError(f"proj_freq={proj_freq} and iterations={iterations} must both be at least 1.")
        if radius_data != "held_out":
            check_source(radius_data)
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out} is no share of the images: it must lie between 0 and 1.")
        TPGM({}, {}, mu=mu)  # checks mu
        self.when, self.proj_freq, self.iterations, self.mu = when, proj_freq, iterations, mu
        self.radius_data, self.held_out = radius_data, held_out
        self.tpgm: TPGM | None = None
        self._held_out_data: Any = None
        self._losses: Iterator[Tensor] | None = None
        self._iteration = 0
        self._drawn = 0

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Take the held-out images from the training data."""
        if self.when == "experience":
            refuse_parts(strategy.experience, "when='experience'")
        else:
            refuse_inner_updates(strategy, "TPGMPlugin(when='step')")
        if self.radius_data == "held_out":
            strategy.adapted_dataset, held = _split(strategy.adapted_dataset, self.held_out)
            self._held_out_data = held.eval()

    def begin(self, strategy: Any) -> None:
        """Radii start again if the anchor has moved, or the tensors are other ones."""
        before, self.tpgm = self.tpgm, TPGM(self.weights, self.anchor_weights, mu=self.mu)
        if before is not None and not self._moved and before.names == self.tpgm.names:
            self.tpgm.load_state_dict(before.state_dict())
        self._losses, self._drawn = None, 0
        if begins(strategy.experience):
            self._iteration = 0

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Learn, if it is time, and project."""
        if self.when == "step" and self.tpgm is not None and self.weights:
            if self._iteration % self.proj_freq == 0:
                self._learn(strategy)
            self._iteration += 1
            self.tpgm.project()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """With when="experience": learn and project. Data loaders are let go: they cannot be copied."""
        if self.when == "experience" and self._begun and self.tpgm is not None and self.weights:
            self._learn(strategy)
            self.tpgm.project()
        self._losses = self._held_out_data = None

    def state_dict(self) -> dict[str, Any]:
        """The radii and how many iterations and held-out batches there were, too."""
        radii = None if self.tpgm is None else self.tpgm.state_dict()
        return {**super().state_dict(), "tpgm": radii, "iteration": self._iteration, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict(state, strategy)
        if self.tpgm is not None and state["tpgm"] is not None:
            self.tpgm.load_state_dict(state["tpgm"])
        self._iteration, self._drawn = state["iteration"], state["drawn"]

    def _learn(self, strategy: Any) -> None:
        assert self.tpgm is not None
        if self._losses is None:
            held_out = self.radius_data == "held_out"
            data = self._held_out_data if held_out else radius_dataset(strategy, self.radius_data)
            self._losses = endless_losses(strategy, data, skip=self._drawn)
        losses = self._losses
        with evaluating(strategy.model):
            self.tpgm.learn(lambda: next(losses), self.iterations)
        self._drawn += self.iterations


class WiSEFT(AnchoredPlugin):
    """Interpolates between anchor and trained weights when an experience ends: (1 - alpha) W0 + alpha W.

    Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903, equation 1; here after
    every experience of a stream, and of the parameters alone: buffers stay as trained.

    Args:
        alpha: in [0, 1]; 1 keeps the trained weights. The paper recommends 0.5.
        anchor: see `AnchoredPlugin`.
        exclude: see `AnchoredPlugin`. The paper interpolates a zero-shot head too: () does, which makes sense where
            new rows begin at something meaningful, as an imprinted cosine head's do.

    Raises:
        ValueError: for an alpha outside [0, 1]; in an online stream that does not show where experiences end.
    """

    def __init__(self, alpha: float = 0.5, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__(anchor, exclude)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha={alpha} lies outside [0, 1].")
        self.alpha = alpha

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the anchor if it is to move."""
        refuse_hidden(strategy.experience, "WiSEFT")
        super().before_training_exp(strategy, **kwargs)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Interpolate in place what this experience has trained."""
        if self._parts.end(strategy.experience) and self._begun:
            for name, weight in self.weights.items():
                weight.copy_(torch.lerp(self.anchor_weights[name], weight, self.alpha))


def _split(dataset: Any, share: float) -> tuple[Any, Any]:
    """The dataset without and with only a share of each class, the same ones in every run.

    Raises:
        ValueError: if no class has two images.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for index, target in enumerate(dataset.targets):
        by_class[int(target)].append(index)
    held: set[int] = set()
    for indices in by_class.values():
        count = min(len(indices) - 1, max(1, round(share * len(indices))))
        held.update(indices[i * len(indices) // count] for i in range(count))
    if not held:
        raise ValueError("TPGM needs images to hold out, and no class of this experience has two.")
    kept = [index for index in range(len(dataset)) if index not in held]
    return dataset.subset(kept), dataset.subset(sorted(held))
