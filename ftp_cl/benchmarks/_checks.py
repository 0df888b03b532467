"""Checks of arguments that datasets and benchmarks share, and the generators that they draw from.

A failed check is one sentence that names the nearest choice.
"""

import contextlib
import difflib
import operator
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image


class Resizing(Protocol):
    """A function that makes an image square, such as ``ftp_cl.models.Preprocessing``."""

    @property
    def size(self) -> int:
        """Side of what it returns, in pixels."""

    def __call__(self, image: Image.Image, /) -> Image.Image: ...


Size: TypeAlias = int | Resizing
"""Of images: a side in pixels, which each dataset brings them to in its own way, or a function that does it."""


UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError)
"""What Pillow, NumPy and gzip raise for a file that is none of theirs, damaged or truncated."""


def check_choice(what: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``; the message names the nearest of them."""
    if value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"choose from {', '.join(choices)}."
    raise ValueError(f"Unknown {what} {value!r}: {advice}")


def check_choices(what: str, values: str | Sequence[str], choices: Sequence[str]) -> tuple[str, ...]:
    """Return ``values`` (one name or several) as a tuple; raise ValueError for an unknown or repeated name, or none."""
    values = (values,) if isinstance(values, str) else tuple(values)
    if not values:
        raise ValueError(f"No {what} was given: choose from {', '.join(choices)}.")
    for position, value in enumerate(values):
        check_choice(what, value, choices)
        if value in values[:position]:
            raise ValueError(f"The {what} {value!r} is given twice: name each once.")
    return values


def check_domains(
    train_domains: str | Sequence[str],
    ood_domains: str | Sequence[str] | None,
    choices: Sequence[str],
    what: str = "domain",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return both as tuples, ``ood_domains`` None being all others; raise ValueError if one is unknown or in both."""
    train_domains = check_choices(what, train_domains, choices)
    if ood_domains is None:
        return train_domains, tuple(domain for domain in choices if domain not in train_domains)
    if not ood_domains:
        return train_domains, ()
    ood_domains = check_choices(what, ood_domains, choices)
    if both := [domain for domain in ood_domains if domain in train_domains]:
        raise ValueError(f"The {what} {both[0]!r} is in train_{what}s and in ood_{what}s: leave it out of one of them.")
    return train_domains, ood_domains


def check_names(what: str, names: Sequence[str]) -> None:
    """Raise ValueError unless each class has a name of its own; ``what`` has these classes."""
    for name, count in Counter(map(composed, names)).items():
        if count > 1:
            raise ValueError(f"{count} classes of {what} are called {name!r}: give each a name of its own.")


def composed(name: str) -> str:
    """Return a name with its letters in Unicode's composed form; file systems and archives may take them apart."""
    return unicodedata.normalize("NFC", name)


def class_indices(what: object, targets: Any, n_classes: int | None) -> list[int]:
    """Return ``targets`` as numbers, after a check that each is a class index; nothing is rounded.

    Args:
        what: names the file or dataset that they are from.
        targets: whole numbers of any type, or an array or tensor of them.
        n_classes: how many classes there are; None for any number.

    Raises:
        ValueError: naming the first that is no whole number, or none of 0 to n_classes - 1.
    """
    indices = []
    for position, target in enumerate(targets.tolist() if hasattr(targets, "tolist") else targets):
        try:
            indices.append(operator.index(target))
        except TypeError:
            raise ValueError(f"{what}: item {position} has the class {target!r}, which is no whole number.") from None
        if n_classes is not None and not 0 <= indices[-1] < n_classes:
            raise ValueError(f"{what}: item {position} has the class {target}, but classes are 0 to {n_classes - 1}.")
    return indices


def check_size(size: Size, smallest: int, largest: int) -> None:
    """Raise ValueError unless ``size`` is a whole number of pixels between ``smallest`` and ``largest``, or has one."""
    side = side_of(size)
    if not isinstance(side, int) or isinstance(side, bool):
        raise ValueError(f"size={size!r} is not a whole number of pixels: use {smallest} to {largest}.")
    if not smallest <= side <= largest:
        nearest = min(max(side, smallest), largest)
        raise ValueError(f"size={side} is outside {smallest} to {largest} pixels: the nearest is {nearest}.")


def check_seed(seed: int) -> None:
    """Raise ValueError unless ``seed`` is a whole number of at least 0."""
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"seed={seed} must be a whole number of at least 0.")


def generator_of(seed: int, *key: int) -> np.random.Generator:
    """Return a generator of its own for each key: what it draws depends on ``seed`` and ``key`` alone."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@contextlib.contextmanager
def readable(what: object, advice: str) -> Iterator[None]:
    """Turn what is raised for a damaged file into a ValueError, one sentence that ends with ``advice``."""
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk or the network, not of the file's content
        raise ValueError(f"{what} cannot be read ({error}): {advice}.") from None


def check_sides(size: Any) -> None:
    """Raise ValueError unless ``size`` is None, or height and width in pixels."""
    if size is None:
        return
    sides = list(size) if isinstance(size, Sequence) else [size]
    if len(sides) != 2 or any(not isinstance(side, Integral) or side < 1 for side in sides):
        raise ValueError(f"resize={size} must be height and width in pixels, two whole numbers of at least 1.")


def side_of(size: Size) -> int:
    """Return the side of the images in pixels."""
    return size.size if callable(size) else size
