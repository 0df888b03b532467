"""Signals by which a cluster says that the process must end: at once, but not in the middle of an iteration."""

import os
import signal
import threading
from types import FrameType
from typing import Any

EXIT_STATUS = 128 + signal.SIGTERM
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class TimeLimitError(BaseException):
    """The time limit has come, and the launcher may not put the job back into the queue.

    Like SystemExit, it is no error of the run, which `resume=true` goes on with.
    """


class Termination:
    """A context manager under which SIGTERM raises SystemExit with status 143.

    It raises where the signal arrives, unless `waits` is set: then whoever set it asks `arrived` at the next good
    moment. Outside the main thread, where Python delivers no signals, it does nothing.

    A signal that submitit has a handler for, by default SIGUSR2, comes before the job's time limit. The handler puts
    the job back into the queue and exits; it is called in that moment. Processes that load images leave it to this one.

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
            for number in SIGNALS:
                if number == signal.SIGTERM or _is_submitits(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        for number, before in self._before.items():
            # torchrun sends SIGTERM when another process has ended; this one, if it fails of that, has yet to say so.
            if not (number == signal.SIGTERM and self._always_waits and kind is not None):
                signal.signal(number, before)

    def exit(self) -> None:
        """End the process as the signal asks; return only if submitit's handler does, which asks another process.

        Raises:
            SystemExit: always, but for submitit's handler.
            TimeLimitError: the handler may not put the job back into the queue.
        """
        number = self._number or signal.SIGTERM
        handler = self._before.get(number)
        if handler is None or not _is_submitits(handler):
            raise SystemExit(EXIT_STATUS)
        for other in self._before:
            signal.signal(other, signal.SIG_IGN)  # the limit's SIGTERM must not stop it halfway
        try:
            handler(number, None)
        except Exception as error:
            raise TimeLimitError(f"the time limit has come ({error}); resume=true goes on") from error
        self._number = None
        for other in self._before:
            signal.signal(other, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        is_submitits = _is_submitits(self._before[number])
        if is_submitits and os.getpid() != self._process:
            return
        if is_submitits or not self.arrived:
            self._number = number
        if not (self.waits or self._always_waits):
            self.exit()


def _is_submitits(handler: Any) -> bool:
    """Whether it is a handler by which submitit requeues a job; `bypass` is that of signals which it ignores."""
    package = str(getattr(handler, "__module__", "")).partition(".")[0]
    return package == "submitit" and handler.__name__ != "bypass"
