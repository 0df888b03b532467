"""What is printed: errors in one sentence, and output that does not fail the work."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from ftp_cl.runs.text import printable


def sentence(error: Exception) -> str:
    """One line on what went wrong; with the error's type, unless it is of a kind that we put into words for users."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror is not None:
        words = error.strerror.rstrip(".") + "."
        words = words if error.filename is None else f"{error.filename}: {words}"
    elif not isinstance(error, ValueError | OSError | ImportError) or not words:
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
    sys.stdout = _Output(before, forgiven)  # type: ignore[assignment]
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout = before


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
