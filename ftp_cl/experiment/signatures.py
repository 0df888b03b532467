"""Builders of methods that take any keys, and show which ones by their signature."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

Plugins = list[Any]
Builder = Callable[..., Plugins]


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, or those with which a class is made."""
    return list(inspect.signature(function).parameters.values())


def with_signature(build: Builder, keys: Iterable[inspect.Parameter]) -> Builder:
    """Show `model` and these keys as the signature of a builder that takes any."""
    model = inspect.Parameter("model", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    shown = [key.replace(kind=inspect.Parameter.KEYWORD_ONLY) for key in keys]
    build.__signature__ = inspect.Signature([model, *shown])  # type: ignore[attr-defined]
    return build
