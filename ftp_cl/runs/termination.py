"""SIGTERM, a cluster's notice that the process must end: at once, but not in the middle of an iteration."""

import signal
import threading
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGTERM


class Termination:
    """A context manager under which SIGTERM raises SystemExit with status 143.

    It raises where the signal arrives, unless `waits` is set: then whoever set it asks `arrived` at the next good
    moment. Outside the main thread, where Python delivers no signals, it does nothing.

    Args:
        always_waits: never raise there: other processes are to end at the same moment. After an error the signal is
            ignored from then on.

    Attributes:
        waits: somebody will look at `arrived` soon.
        arrived: the signal has come.
    """

    def __init__(self, always_waits: bool = False) -> None:
        self._always_waits = always_waits
        self.waits = False
        self.arrived = False
        self._before: Any = None

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        # torchrun sends SIGTERM when another process has ended; this one, if it fails of that, has yet to say so.
        if self._before is not None and not (self._always_waits and kind is not None):
            signal.signal(signal.SIGTERM, self._before)

    def exit(self) -> None:
        """End the process as the signal asks."""
        raise SystemExit(EXIT_STATUS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.arrived = True
        if not (self.waits or self._always_waits):
            self.exit()
