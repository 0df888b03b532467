"""Warnings of other packages about their own code, which a user of ours can do nothing about."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_OF_QPSOLVERS = "qpsolvers"  # importing Avalanche warns that solvers are missing which only GEM needs
_INDEXING = "Using a non-tuple sequence"  # of torch, on a line of Avalanche's EWC and MAS


@contextmanager
def without_warnings_of_others() -> Iterator[None]:
    """Show all warnings but these.

    A filter would not do: Avalanche's deprecated functions, which it calls itself in each experience, put one of their
    own before it.
    """
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_others(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            packages = Path(filename).parts
            deprecated = issubclass(category, DeprecationWarning) or str(message).startswith(_INDEXING)
            if not (_OF_QPSOLVERS in packages or ("avalanche" in packages and deprecated)):
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_others
        yield
