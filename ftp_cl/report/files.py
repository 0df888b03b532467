"""Files that are written whole or not at all, and read if they are files."""

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their targets, then rename them: a failure before that leaves the old ones untouched.

    Args:
        contents: target -> its new content; directories are made as needed.

    Raises:
        OSError: a file cannot be written; `filename` is the target.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].unlink(missing_ok=True)  # of a killed process with this number, or a link to elsewhere
            with temporary[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            temporary[path].replace(path)
        for folder in {path.parent for path in contents}:
            _sync(folder)  # a power cut must not take back the renaming
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


def read_file(path: Path) -> bytes:
    """The content of a regular file: opening a pipe would wait for a writer.

    Raises:
        OSError: it cannot be read, or is none; `filename` is its path.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `replace_files` writes beside its target: left over, if its writer was killed."""
    return _TEMPORARY.fullmatch(path.name) is not None
