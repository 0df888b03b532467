"""The weights that others stay near: which they are, when they move, and which tensors have one.

Shared by FTPPlugin and the methods that it is compared with, so that all are compared around the same anchor.
"""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from ftp_cl.models.weights import read_tensors
from ftp_cl.optim.checks import anchor_values, check_value
from ftp_cl.optim.names import Exclude, aliases, exclude_entries, match
from ftp_cl.plugins.classifier import find_classifier
from ftp_cl.plugins.last_model import LastModel
from ftp_cl.plugins.stages import PartsDone, begins

Anchor = Literal["previous", "initial"] | Mapping[str, Tensor] | str | os.PathLike[str]


class AnchoredPlugin(SupervisedPlugin[Any]):
    """Base of methods that tie trained weights to an anchor: takes the anchor at the start of an experience.

    A method overrides `begin`, or uses `weights` and `anchor_weights` in further hooks.

    Args:
        anchor: "previous": the weights at the start of each experience. "initial": those that training started from. Or
            weights: a state dict, or the path of a .safetensors or torch file. A tensor that has grown since, or that
            the given weights lack, is anchored where it is at the start of the experience.
        exclude: what has no anchor. "head": the classifier, as `find_classifier` finds it. Otherwise parameter and
            module names, shell patterns, module types; () for nothing.

    Attributes:
        weights: the anchored parameters of this experience, by canonical name: those that have been trainable in one of
            its iterations. What is frozen when it begins, and thawed later (`HeadFirst`), is anchored then.
        anchor_weights: the anchor of each.

    Raises:
        ValueError: for an anchor that is no file, or, at the first iteration, an `exclude` that matches nothing.
    """

    def __init__(self, anchor: Anchor = "previous", exclude: Exclude = "head") -> None:
        super().__init__()
        self.anchor = anchor
        self.exclude = exclude if isinstance(exclude, str) else exclude_entries(exclude)
        self.weights: dict[str, nn.Parameter] = {}
        self.anchor_weights: dict[str, Tensor] = {}
        self._given = read_anchor(anchor)
        self._begun = self._moved = False
        self._candidates: dict[str, nn.Parameter] = {}
        self._parts = PartsDone()
        self._last_model = LastModel()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the anchor if it is to move."""
        self._begun = False
        self._parts.begin(strategy.experience)
        other_model = self._last_model.changes_to(strategy.model)
        self._moved = anchor_moves(self.anchor, strategy.experience) or other_model or not self.anchor_weights
        if self._moved:
            self.anchor_weights = {}

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Take the anchor: here and not earlier, because some strategies still change weights before."""
        if not self._begun:
            self._candidates, self.weights = not_excluded(strategy.model, self.exclude), {}
        trained = {n: weight for n, weight in self._candidates.items() if weight.requires_grad or n in self.weights}
        if not self._begun or len(trained) > len(self.weights):
            self._begun = True
            self.weights = trained
            take_anchor(self.anchor_weights, self.weights, self._given)
            self.begin(strategy)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of `ftp-cl run` needs of this plugin."""
        state = {"anchor_weights": self.anchor_weights, "begun": self._begun, "moved": self._moved}
        return {**state, "weights": list(self.weights), "parts": self._parts.count}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave, for a strategy whose model is as it was then."""
        self._last_model = LastModel()
        self.anchor_weights = {name: anchor.to(strategy.device) for name, anchor in state["anchor_weights"].items()}
        self._begun, self._moved = state["begun"], state["moved"]
        self._parts.count = state["parts"]
        if self._begun:
            self._candidates = not_excluded(strategy.model, self.exclude)
            self.weights = {name: self._candidates[name] for name in state["weights"]}
            self.begin(strategy)

    def begin(self, strategy: Any) -> None:
        """Called in an experience's first iteration, and again when `weights` has grown by what was thawed."""


def read_anchor(anchor: Anchor) -> Mapping[str, Tensor] | None:
    """Copies of the weights that were given to stay near, by canonical name; None for "previous" and "initial".

    Raises:
        ValueError: for a word that is neither of these nor the path of a file.
        TypeError: for anything but words, paths and weights by name.
    """
    if isinstance(anchor, Mapping):
        return anchor_values(anchor)
    if not isinstance(anchor, (str, os.PathLike)):
        raise TypeError(
            f"anchor={anchor!r:.50} is neither 'previous' nor 'initial' nor the path of a weight file nor a state dict."
        )
    if anchor in ("previous", "initial"):
        return None
    path = Path(anchor).expanduser()
    if isinstance(anchor, str) and not path.exists():
        raise ValueError(
            f"anchor={anchor!r} is neither 'previous' nor 'initial' nor the path of an existing weight file."
        )
    return anchor_values(read_tensors(path))


def anchor_moves(anchor: Anchor, experience: Any) -> bool:
    """Whether this experience starts around other weights: in an online stream, at boundaries that it shows."""
    return isinstance(anchor, str) and anchor == "previous" and begins(experience)


def not_excluded(model: nn.Module, exclude: Exclude) -> dict[str, nn.Parameter]:
    """The parameters that `exclude` leaves, by canonical name; "head" is the model's classifier."""
    if isinstance(exclude, str) and exclude == "head":
        exclude = find_classifier(model)[0]
    excluded = match(exclude, model)
    return {names[0]: parameter for parameter, names in aliases(model).items() if excluded.isdisjoint(names)}


def take_anchor(
    anchors: MutableMapping[str, Tensor], weights: Mapping[str, nn.Parameter], given: Mapping[str, Tensor] | None
) -> None:
    """Anchor those tensors that have no anchor of their shape yet: at the given weights, or at the current ones.

    Raises:
        ValueError: if none of the given weights fits, or one that does is not dense, real and finite.
    """
    if given is not None and weights and not any(_fits(given, name, weight) for name, weight in weights.items()):
        raise ValueError(
            f"None of the anchor's tensors ({next(iter(given), 'it is empty')}, ...) has name and shape of one of the "
            f"model's ({next(iter(weights))}, ...)."
        )
    for name, weight in weights.items():
        if name not in anchors or anchors[name].shape != weight.shape:
            if given is not None and _fits(given, name, weight):
                check_value(name, given[name], weight)
                anchors[name] = given[name].to(weight)
            else:
                anchors[name] = weight.detach().clone()


def _fits(given: Mapping[str, Tensor], name: str, weight: nn.Parameter) -> bool:
    return name in given and getattr(given[name], "shape", None) == weight.shape
