"""Checkpoints on disk: written whole, with checksums, the last two kept, damaged ones passed over.

A checkpoint is two files in `<run directory>/checkpoints`: `<number>.safetensors` with the tensors, written first, and
`<number>.json` with everything else and the checksums of both, whose appearance makes it count.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ftp_cl.runs.files import read_file, replace_files

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
FORMAT = "ftp_cl.checkpoint/1"
KEPT = 2


class CheckpointFiles:
    """The checkpoints of one run directory.

    Args:
        run_directory: theirs is made below it when the first is written.
    """

    def __init__(self, run_directory: Path) -> None:
        self.folder = run_directory / FOLDER

    def write(self, state: Any, tensors: dict[str, Tensor]) -> None:
        """Add a checkpoint, and remove all but the last two.

        Raises:
            OSError: it cannot be written; those before are untouched.
        """
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 0
        tensor_bytes = save(tensors)
        body = json.dumps(state)
        head = {"format": FORMAT, "tensors_sha256": _checksum(tensor_bytes), "state_sha256": _checksum(body.encode())}
        replace_files({self._tensors_path(number): tensor_bytes})
        # The state is a string in the JSON, so that its checksum is that of the very bytes.
        try:
            replace_files({self._state_path(number): json.dumps({**head, "state": body}).encode()})
        except OSError:
            self._tensors_path(number).unlink()  # they take the room that the next one needs
            raise
        self._remove([*numbers, number][:-KEPT])

    def newest_first(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """State and tensors of those that are whole, the newest first; a warning for each that is not."""
        for number in reversed(self._numbers()):
            try:
                yield self._read(number)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, SafetensorError) as error:
                logger.warning("%s is damaged (%s); the one before is used.", self._state_path(number), error)

    def clear(self) -> None:
        """Remove all of them."""
        self._remove(self._numbers())
        for leftover in self.folder.glob("*.safetensors"):
            leftover.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _read(self, number: int) -> tuple[Any, dict[str, Tensor]]:
        head = json.loads(read_file(self._state_path(number)))
        if head["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        tensor_bytes = read_file(self._tensors_path(number))
        if (
            _checksum(tensor_bytes) != head["tensors_sha256"]
            or _checksum(head["state"].encode()) != head["state_sha256"]
        ):
            raise ValueError("its checksum is wrong")
        return json.loads(head["state"]), load(tensor_bytes)

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal())

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            # The state first: tensors alone are no checkpoint, and a state alone would look like a damaged one.
            self._state_path(number).unlink(missing_ok=True)
            self._tensors_path(number).unlink(missing_ok=True)

    def _state_path(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"

    def _tensors_path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
