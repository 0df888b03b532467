"""One process at a time in a run directory."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ftp_cl.experiment.config import ConfigError
from ftp_cl.report import LOCK_FILE

# File systems of some clusters offer no locks: a run there is not protected, but it runs.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_TRIES, _PAUSE = 4, 0.05  # seconds


class DirectoryLock:
    """Holds a directory for this process, as a context manager.

    The lock is the operating system's (`flock`): it ends with the process, however that dies, so a lock file that is
    left behind holds nothing.

    Raises:
        ConfigError: on entering, if another process holds the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._file: int | None = None

    def __enter__(self) -> "DirectoryLock":
        tries = 0
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                # Whoever only looks (`is_locked`) is gone in a moment.
                if (tries := tries + 1) > _TRIES:
                    raise ConfigError(f"{self._path.parent} is being written by {_owner(self._path)}.") from None
                time.sleep(_PAUSE)
                continue
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(file)
                    raise
            if _is_still(self._path, file):
                self._file = file
            else:
                os.close(file)  # the one before has just removed it: what we hold has no name any more
        with contextlib.suppress(OSError):  # the lock holds without its owner's name, on a full disk say
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        owner: dict[str, Any] = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
