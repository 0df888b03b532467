"""Checkpoints on disk: written whole, with checksums, the last two kept, damaged ones passed over.

A checkpoint is `<run directory>/checkpoints/<number>-<its SHA-256>.pt`, which `torch.load(weights_only=True)` reads.
"""

import hashlib
import io
import logging
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftp_cl.runs.files import read_file, replace_files

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
KEPT = 2

_NAME = re.compile(r"(\d+)-([0-9a-f]{64})\.pt")
_EARLIER = ("*.json", "*.safetensors")  # as versions before this format wrote them


def to_bytes(state: Any) -> bytes:
    """What `from_bytes` takes, of plain values and tensors."""
    import torch  # takes a while, here and below: who names a directory alone need not wait

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(content: bytes, device: Any = "cpu") -> Any:
    """The inverse of `to_bytes`, with tensors of its own each time; nothing in `content` is run.

    Args:
        content: as it was written.
        device: of the tensors that were not on a CPU; those that were stay there, such as random states.

    Raises:
        ValueError: it holds anything but plain values and tensors.
    """
    import torch

    def place(storage: Any, location: str) -> Any:
        return storage if location == "cpu" else torch.serialization.default_restore_location(storage, str(device))

    try:
        return torch.load(io.BytesIO(content), map_location=place, weights_only=True)
    except pickle.UnpicklingError:  # its message recommends to trust the file
        raise ValueError("it holds more than plain values and tensors") from None


class CheckpointFiles:
    """The checkpoints of one run directory.

    Args:
        run_directory: theirs is made below it when the first is written.
    """

    def __init__(self, run_directory: Path) -> None:
        self.folder = run_directory / FOLDER

    def write(self, content: bytes) -> None:
        """Add a checkpoint, and remove all but the last two.

        Raises:
            OSError: it cannot be written; those before are untouched.
        """
        paths = self._paths()
        number = _number(paths[-1]) + 1 if paths else 0
        replace_files({self.folder / f"{number:06}-{hashlib.sha256(content).hexdigest()}.pt": content})
        for path in self._paths()[:-KEPT]:
            path.unlink()

    def newest_first(self) -> Iterator[bytes]:
        """The content of those that are whole, the newest first; a warning for each that is not."""
        for path in reversed(self._paths()):
            try:
                content = read_file(path)
                if hashlib.sha256(content).hexdigest() not in path.name:
                    raise ValueError("its checksum is wrong")
            except (ValueError, OSError) as error:
                logger.warning("%s is damaged (%s); the one before is used.", path, error)
            else:
                yield content

    def are_of_earlier_version(self) -> bool:
        """Whether there are checkpoints, but in a format that is read no more."""
        return not self._paths() and any(self.folder.glob(_EARLIER[0]))

    def clear(self) -> None:
        """Remove all of them."""
        for path in [*self._paths(), *(path for pattern in _EARLIER for path in self.folder.glob(pattern))]:
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("*.pt") if _NAME.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def truncate(path: Path, size: int) -> None:
    """Cut a file that has grown since to the size that it had.

    Raises:
        ValueError: it is shorter.
    """
    actual = path.stat().st_size if path.exists() else 0
    if not 0 <= size <= actual:
        raise ValueError(f"{path.name} is shorter than when the checkpoint was written")
    if path.exists():
        os.truncate(path, size)
