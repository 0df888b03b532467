"""Files that are written whole or not at all, and read without waiting for anybody."""

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")

# Some file systems (FUSE, shares of Windows) cannot sync a directory, and some directories must not be listed.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their targets, then rename them: a failure before that leaves the old ones untouched.

    Args:
        contents: target -> its new content; directories are made as needed.

    Raises:
        OSError: a file cannot be written; `filename` is the target.
    """
    # Not named by the process: threads, and machines that share the directory, may write the same target at one time.
    temporary = {path: path.with_name(f".{path.name}.{secrets.randbits(48)}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            with temporary[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            temporary[path].replace(path)
        for folder in {path.parent for path in contents}:  # a power cut must not take back the renaming
            try:
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno not in _NO_SYNC:
                    raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        for leftover in temporary.values():
            with contextlib.suppress(OSError):  # it never came to be, or went with its file system
                leftover.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `replace_files` writes beside its target: left over, if its writer was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


def open_file(path: Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises:
        OSError: it cannot be opened, or is no regular file: a named pipe would let its reader wait for ever.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        return file.read()
