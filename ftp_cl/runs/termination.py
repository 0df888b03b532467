"""Signals by which a cluster says that the process must end: at once, but not in the middle of an iteration."""

import os
import signal
import threading
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGTERM
_LAUNCHERS = [getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)]


class Termination:
    """A context manager under which SIGTERM raises SystemExit with status 143.

    It raises where the signal arrives, unless `waits` is set: then whoever set it asks `arrived` at the next good
    moment. Outside the main thread, where Python delivers no signals, it does nothing.

    SIGUSR1 and SIGUSR2 likewise, where the process has a handler: that of submitit puts the job back into the queue
    before its time limit. It is called first, in that moment. Processes that load images ignore these two.

    Args:
        always_waits: never raise there: other processes are to end at the same moment. After an error the signal is
            ignored from then on.

    Attributes:
        waits: somebody will look at `arrived` soon.
    """

    def __init__(self, always_waits: bool = False) -> None:
        self._always_waits = always_waits
        self.waits = False
        self._process = os.getpid()
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def arrived(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def __enter__(self) -> "Termination":
        if threading.current_thread() is threading.main_thread():
            for number in [signal.SIGTERM, *(number for number in _LAUNCHERS if callable(signal.getsignal(number)))]:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        for number, before in self._before.items():
            # torchrun sends SIGTERM when another process has ended; this one, if it fails of that, has yet to say so.
            if number != signal.SIGTERM or not (self._always_waits and kind is not None):
                signal.signal(number, before)

    def exit(self) -> None:
        """End the process as the signal asks."""
        if self._number is not None and self._number != signal.SIGTERM:
            self._before[self._number](self._number, None)
        raise SystemExit(EXIT_STATUS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM and os.getpid() != self._process:
            return
        self._number = number
        if not (self.waits or self._always_waits):
            self.exit()
