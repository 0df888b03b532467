"""What is printed: errors in one sentence, output that does not fail the work, and no warnings of other packages."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftp_cl.runs.termination import TimeLimitError
from ftp_cl.runs.text import printable

_OF_QPSOLVERS = "qpsolvers"  # importing Avalanche warns that solvers are missing which only GEM needs
_INDEXING = "Using a non-tuple sequence"  # of torch, on a line of Avalanche's EWC and MAS


def sentence(error: BaseException) -> str:
    """One line on what went wrong; with the error's type, unless it is of a kind that we put into words for users."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror is not None:
        words = error.strerror.rstrip(".") + "."
        words = words if error.filename is None else f"{error.filename}: {words}"
    elif not isinstance(error, ValueError | OSError | ImportError | TimeLimitError) or not words:
        words = f"{type(error).__name__}: {words}".removesuffix(": ")
    return printable(words)


@contextlib.contextmanager
def lasting_output(forgiven: type[OSError] = OSError) -> Iterator[None]:
    """Print to standard output as long as somebody reads, and then to nowhere; what it has no characters for, as ?.

    Args:
        forgiven: errors of the output that do not matter: all where the work is on the disk, or only that the reader
            has gone.
    """
    before = sys.stdout
    if before is None:  # as it is when closed from the beginning
        yield
        return
    if isinstance(before, io.TextIOWrapper):
        before.reconfigure(errors="replace")
    with contextlib.redirect_stdout(_Output(before, forgiven)) as output:  # type: ignore[type-var]
        try:
            yield
        finally:
            output.flush()


class _Output:
    """A text stream in front of another one."""

    def __init__(self, stream: Any, forgiven: type[OSError]) -> None:
        self._stream, self._forgiven = stream, forgiven

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Any) -> None:
        try:
            act()
        except OSError as error:
            with contextlib.suppress(OSError):  # what it still holds would fail once more when the process ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if not isinstance(error, self._forgiven):
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def without_warnings_of_others() -> Iterator[None]:
    """Show all warnings but those of other packages about their own code, which a user can do nothing about.

    A filter would not do: Avalanche's deprecated functions, which it calls itself in each experience, put one of their
    own before it.
    """
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_others(message: Any, category: type[Warning], filename: str, *place: Any, **named: Any) -> None:
            packages = Path(filename).parts
            deprecated = issubclass(category, DeprecationWarning) or str(message).startswith(_INDEXING)
            if not (_OF_QPSOLVERS in packages or ("avalanche" in packages and deprecated)):
                show(message, category, filename, *place, **named)

        warnings.showwarning = show_others
        yield
