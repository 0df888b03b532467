"""One process at a time in a run directory."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, ClassVar

from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.status import LOCK_FILE

# File systems of some clusters offer no locks: a run there is not protected, but it runs.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

_TRIES, _PAUSE = 4, 0.05  # seconds


class DirectoryLock:
    """Holds a directory for this process, as a context manager.

    The lock is the operating system's (`flock`): it ends with the process, however that dies and whatever children it
    leaves, so a lock file that is left behind holds nothing. Where this process may not write there is no lock.

    Args:
        directory: made on entering if it does not exist.

    Raises:
        ConfigError: on entering, if another process holds the directory, or it cannot be made.
    """

    _held: ClassVar[set["DirectoryLock"]] = set()

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._file: int | None = None

    def __enter__(self) -> "DirectoryLock":
        directory = self._path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except OSError as error:
            if error.errno in _READ_ONLY and directory.is_dir() and not os.access(directory, os.W_OK):
                return self
            raise ConfigError(f"{directory} cannot be a run directory: {error.strerror}.") from error
        self._held.add(self)
        return self

    def _acquire(self) -> None:
        tries = 0
        while self._file is None:
            file = _open(self._path)
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

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._let_go()

    def _let_go(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None
        self._held.discard(self)

    @classmethod
    def let_go_in_child(cls) -> None:
        """A forked child shares the open file and thereby the lock: it would hold it when this process is killed."""
        for lock in list(cls._held):
            lock._let_go()


os.register_at_fork(after_in_child=DirectoryLock.let_go_in_child)


def _open(path: Path) -> int:
    """The lock file, if it is one: what a link leads to must not be overwritten."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return file
        os.close(file)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    raise ConfigError(f"{path} is no lock file of a run but a link or something else: remove it.")


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        owner: dict[str, Any] = json.loads(path.read_bytes())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
