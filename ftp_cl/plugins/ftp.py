"""FTP as an Avalanche plugin: `Naive(..., plugins=[FTPPlugin()])`."""

import logging
import math
from numbers import Integral
from typing import Any, Literal

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EWCPlugin, GDumbPlugin, MASPlugin, SynapticIntelligencePlugin
from avalanche.training.plugins.from_scratch_training import FromScratchTrainingPlugin
from torch import nn
from torch.optim import Optimizer

from ftp_cl.optim import FTP
from ftp_cl.optim.checks import followers
from ftp_cl.optim.names import Exclude, aliases, exclude_entries
from ftp_cl.plugins.anchor import Anchor, anchor_moves, read_anchor
from ftp_cl.plugins.classifier import find_classifier
from ftp_cl.plugins.experience_projection import ExperienceProjection
from ftp_cl.plugins.last_model import LastModel
from ftp_cl.plugins.seen_classes import SeenClasses
from ftp_cl.plugins.stages import PartsDone, has_hidden_boundaries, refuse_hidden

logger = logging.getLogger(__name__)


class FTPPlugin(SupervisedPlugin[Any]):
    """Keeps each weight tensor in a ball around its anchor, and learns the radii (FTP, arXiv 2310.19182).

        strategy = Naive(model=model, optimizer=optimizer, criterion=criterion, plugins=[FTPPlugin()])

    The defaults are the published values, as in `method=ftp`; docs/protocol.md says where others do better. The plugin
    works with every supervised Avalanche strategy in which a torch optimizer trains the weights, and with online
    streams. Take the learning rate at which a new head trains well (docs/learning_rate.md). With a new model, the
    plugin starts again.

    Args:
        k: factor in [0, 1] on votes that shrink a radius; 1 as published, 0 lets radii only grow.
        anchor: what the weights stay near. "previous": the weights at the start of each experience. "initial": the
            weights before the first experience. Or weights: a state dict, or the path of a .safetensors or torch file.
            Radii start again whenever the anchor moves. The plugin then merges what peft's adapters have learned into
            base weights, or keeps it in frozen adapters (`FTP.next_task`).
        exclude: what is not projected. "head": the classifier, as `find_classifier` finds it (logged). Or as in `FTP`:
            parameter and module names, shell patterns, module types; () for nothing.
        when: "step", as published: project after every optimizer step. "experience": train freely, and project the
            whole change once at the end, with radii learned then (`project_post_hoc`).
        radius_data: for when="experience", the source of the radii's batches: "train", "validation" (the benchmark's
            stream of that name) or "replay" (the buffer of a ReplayPlugin; the training data while it is empty).
        radius_iterations: for when="experience", the number of batches.
        method: the rule for the radii, as in `FTP`: "paper" is the published one, "exact" the derivative of the loss,
            "one_pass" a cheaper variant, which when="experience" refuses.
        mu: step size of the radii; 1e-2 as published.
        scale_by_classes: a power p, 0 (off) as published. It multiplies mu by s^p, where s is the share of the classes
            seen so far that the current experience has, because its batches vote for these classes alone. In a
            class-incremental stream of equal experiences, the t-th has mu / t^p. Leave it at 0 with replay or
            Cumulative, whose batches vote for all seen classes. It has no effect where every experience has all
            classes, in streams without task boundaries, and where experiences do not list their classes. Class ids
            that begin again in each task count as new classes if the benchmark is Avalanche's `nc_benchmark` or the
            model has a head for each task.
        pretrained_classes: how many classes `scale_by_classes` counts as seen before the stream, for what the backbone
            knows. With 0, the default, the first experience has the whole mu. With 20, a first experience of 4 classes
            has the share 4 / 24.
        backend, direction_dtype, anchor_device, anchor_dtype, round_anchor: as in `FTP`. No effect with
            when="experience", which keeps no state between steps.
        reanchor_every: for online streams without task boundaries: move the anchor to the current weights
            every so many iterations. None (default) leaves it where training started.

    Attributes:
        ftp: the `FTP` behind it, with `radii()`, `distances()`, `summary()`; None before training.

    Raises:
        ValueError: for wrong arguments, here or, where they depend on the model, at the first experience.
        TypeError: for an `exclude` or `anchor` of another kind; at the first experience, for a strategy whose weights
            are not trained by an optimizer.
    """

    def __init__(
        self,
        k: float = 1.0,
        anchor: Anchor = "previous",
        exclude: Exclude = "head",
        when: Literal["step", "experience"] = "step",
        *,
        radius_data: Literal["train", "validation", "replay"] = "train",
        radius_iterations: int = 50,
        method: Literal["paper", "exact", "one_pass"] = "paper",
        mu: float = 1e-2,
        scale_by_classes: float = 0.0,
        pretrained_classes: float = 0.0,
        backend: str = "auto",
        direction_dtype: torch.dtype | str | None = None,
        anchor_device: torch.device | str | None = None,
        anchor_dtype: torch.dtype | str | None = None,
        round_anchor: bool = False,
        reanchor_every: int | None = None,
    ) -> None:
        super().__init__()
        if when not in ("step", "experience"):
            raise ValueError(f"when={when!r} is unknown; choose 'step' or 'experience'.")
        if when == "experience" and method == "one_pass":
            raise ValueError("method='one_pass' is about single steps, and when='experience' projects only after many.")
        if reanchor_every is not None and not (isinstance(reanchor_every, Integral) and reanchor_every >= 1):
            raise ValueError(f"reanchor_every={reanchor_every!r} must be a whole number of at least 1, or None.")
        if not 0 <= scale_by_classes < math.inf:
            raise ValueError(f"scale_by_classes={scale_by_classes!r} must be at least 0, and finite (0 as published).")
        if not 0 <= pretrained_classes < math.inf:
            raise ValueError(f"pretrained_classes={pretrained_classes!r} must be at least 0, and finite.")
        self._settings: dict[str, Any] = {
            "k": k,
            "method": method,
            "mu": mu,
            "backend": backend,
            "direction_dtype": direction_dtype,
            "anchor_device": anchor_device,
            "anchor_dtype": anchor_dtype,
            "round_anchor": round_anchor,
        }
        FTP([], **self._settings)  # checks them
        self.anchor = anchor
        self.exclude = exclude if isinstance(exclude, str) else exclude_entries(exclude)
        self.when = when
        self.scale_by_classes = scale_by_classes
        self.pretrained_classes = pretrained_classes
        self.reanchor_every = reanchor_every
        self.ftp: FTP | None = None
        self._weights = read_anchor(anchor)
        self._between = ExperienceProjection(radius_data, radius_iterations, mu)
        self._iterations_at_anchor = 0
        self._anchor_is_to_move = False
        self._seen, self._share = SeenClasses(), 1.0
        self._parts = PartsDone()
        self._has_trained = False
        self._last_model = LastModel()
        self._logged_head: set[str] = set()
        self._told_of_no_optimizer = False

    # ---- Avalanche's hooks ------------------------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take the model's parameters anew (heads grow), and see whether the anchor is to move."""
        refuse_without_steps(strategy, "FTPPlugin")
        if sum(isinstance(plugin, FTPPlugin) for plugin in strategy.plugins) > 1:
            raise ValueError("Two FTPPlugins in one strategy would project each other's weights: keep one.")
        if self.when == "experience":
            refuse_hidden(strategy.experience, "when='experience'")
        if self._parts.begin(strategy.experience):
            self._has_trained = False
        if optimizer_of(strategy) is None:
            if not self._told_of_no_optimizer:
                logger.warning("%s has no optimizer, so FTPPlugin has nothing to do.", type(strategy).__name__)
                self._told_of_no_optimizer = True
            return
        if self._last_model.changes_to(strategy.model) and self.ftp is not None:
            self._restart()
            self.ftp.detach()
            self.ftp, self._seen = None, SeenClasses()
        if self.ftp is None:
            if any(isinstance(plugin, (GDumbPlugin, FromScratchTrainingPlugin)) for plugin in strategy.plugins):
                logger.warning(
                    "%s sets the weights back at every experience: FTP keeps them near that starting point, so it "
                    "spares the pretrained features but has no earlier task to remember.",
                    type(strategy).__name__,
                )
            self.ftp = self._new_ftp(strategy.model)
            if not self.ftp.projected_names():
                logger.warning("FTP projects nothing: `exclude` leaves no parameter of the model.")
        else:
            self.ftp.track(strategy.model, exclude=self._excluded(strategy.model))
        if self.ftp.has_adapters:
            self._check_with_adapters(strategy)
        self._anchor_is_to_move = anchor_moves(self.anchor, strategy.experience)
        self._share = self._seen.share(strategy, self.pretrained_classes)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Attach to the optimizer in use: strategies replace it, and copies and checkpoints lose hooks.

        Here and not earlier, because some strategies still change weights in `before_training_exp`.
        """
        if self.ftp is None:
            return
        if self._anchor_is_to_move:
            self._next_task()
        if self.scale_by_classes:
            self.ftp.mu = self._between.mu = self._settings["mu"] * self._share**self.scale_by_classes
        self._has_trained = True
        if self.when == "experience":
            self._between.begin(self._projected(strategy.model), self._weights)
            return
        optimizer = optimizer_of(strategy)
        if optimizer is not None and not self.ftp.is_attached_to(optimizer):
            self._take_over(optimizer)
            self.ftp.detach()  # many strategies make another optimizer as they go on
            self.ftp.attach(optimizer)
        if self.reanchor_every is not None and has_hidden_boundaries(strategy.experience):
            if self._iterations_at_anchor == self.reanchor_every:
                self._next_task()
            self._iterations_at_anchor += 1

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Warn, once, if nothing was projected that should have been."""
        if self.ftp is not None and self.when == "step":
            self.ftp.warn_of_unseen_steps()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """With when="experience": project what this experience has changed."""
        has_ended = self._parts.end(strategy.experience)
        if has_ended and self._has_trained and self.ftp is not None and self.when == "experience":
            self._between.end(strategy, self._projected(strategy.model))

    # ---- checkpoints of ftp_cl's runs -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What training has changed: anchors, radii, counters; plain values and tensors."""
        return {
            "ftp": None if self.ftp is None else self.ftp.state_dict(),
            "between": self._between.state_dict(),
            "iterations_at_anchor": self._iterations_at_anchor,
            "anchor_is_to_move": self._anchor_is_to_move,
            "seen": self._seen.classes,
            "share": self._share,
            "parts": self._parts.count,
            "has_trained": self._has_trained,
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave, for a strategy whose model is as it was then."""
        self._last_model = LastModel()
        if state["ftp"] is not None:
            self.ftp = self._new_ftp(strategy.model) if self.ftp is None else self.ftp
            self.ftp.load_state_dict(state["ftp"])
        self._between.load_state_dict(state["between"])
        self._iterations_at_anchor = state["iterations_at_anchor"]
        self._anchor_is_to_move = state["anchor_is_to_move"]
        self._seen.classes, self._share, self._parts.count = state["seen"], state["share"], state["parts"]
        self._has_trained = state["has_trained"]

    # ---- readings ---------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, dict[str, float]]:
        """Radius, distances from the anchor and share of rows at the boundary, per tensor; as `FTP.summary`."""
        if self.when == "experience":
            return self._between.summary
        return {} if self.ftp is None else self.ftp.summary()

    # ---- how --------------------------------------------------------------------------------------------------------

    def _new_ftp(self, model: nn.Module) -> FTP:
        return FTP(model, anchor=self._weights, exclude=self._excluded(model), **self._settings)

    def _excluded(self, model: nn.Module) -> Exclude:
        if not isinstance(self.exclude, str) or self.exclude != "head":
            return self.exclude
        names, how = find_classifier(model)
        if names != self._logged_head:
            logger.info("FTP leaves the classifier free (found by %s): %s.", how, ", ".join(sorted(names)))
            self._logged_head = names
        return names

    def _take_over(self, optimizer: Optimizer) -> None:
        """Detach what an earlier strategy's plugin has left at this optimizer: its user has no hold of it any more."""
        for other in followers(optimizer, FTP):
            if other is not self.ftp:
                other.detach()
                logger.info("FTPPlugin takes the optimizer over from another FTP, which is attached to it no more.")

    def _check_with_adapters(self, strategy: Any) -> None:
        if self.when == "experience":
            raise ValueError("when='experience' projects weights, not the change of peft's adapters: use when='step'.")
        pulling = [p for p in strategy.plugins if isinstance(p, (EWCPlugin, MASPlugin, SynapticIntelligencePlugin))]
        if pulling and self.anchor == "previous":
            raise ValueError(
                f"{type(pulling[0]).__name__} pulls an adapter's factors back to where they were, and FTP sets one of "
                "them to 0 at each experience's start: use anchor='initial', or one of the two."
            )

    def _next_task(self) -> None:
        assert self.ftp is not None
        if frozen := self.ftp.next_task():
            logger.info("FTP keeps what the adapters have learned in frozen ones: %s.", ", ".join(frozen))
        self._restart()

    def _restart(self) -> None:
        assert self.ftp is not None
        self.ftp.restart()
        self._between.restart()
        self._iterations_at_anchor = 0
        self._anchor_is_to_move = False

    def _projected(self, model: nn.Module) -> dict[str, nn.Parameter]:
        assert self.ftp is not None
        named = {names[0]: parameter for parameter, names in aliases(model).items()}
        return {name: named[name] for name in self.ftp.projected_names() if named[name].requires_grad}


def optimizer_of(strategy: Any) -> Optimizer | None:
    """The strategy's torch optimizer, out of a wrapper that keeps it as its attribute `opt`."""
    optimizer = getattr(strategy, "optimizer", None)
    while optimizer is not None and not isinstance(optimizer, Optimizer):
        optimizer = getattr(optimizer, "opt", None)
    return optimizer


def refuse_without_steps(strategy: Any, what: str) -> None:
    """Raise a TypeError for a strategy that changes weights without a step of an optimizer."""
    # By name: Avalanche has two, one of which needs a package that is seldom installed.
    if any(kind.__name__ == "LaMAML" for kind in type(strategy).__mro__):
        raise TypeError(
            f"{what} cannot serve {type(strategy).__name__}: it assigns weights itself and takes no optimizer "
            "step that could be followed."
        )
