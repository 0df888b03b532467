"""Fetching published archives; a failure is one sentence: which file, where it belongs, where it is published."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torchvision.datasets.utils import check_integrity, download_url, extract_archive


@dataclass(frozen=True)
class Archive:
    """A published archive that holds one folder.

    Attributes:
        url: where it is published.
        md5: of the archive.
        folder: the folder in it.
    """

    url: str
    md5: str
    folder: str

    @property
    def filename(self) -> str:
        """The name of the archive."""
        return self.url.rpartition("/")[2].partition("?")[0]


def data_root(given: str | Path | None, name: str) -> Path:
    """Return the folder given, or where Avalanche keeps the data set ``name``.

    That is ~/.avalanche/data/<name>, unless Avalanche's configuration says otherwise.
    """
    if given is not None:
        return Path(given).expanduser()
    # Importing Avalanche takes seconds, which users who say where their data is need not wait.
    from avalanche.benchmarks.datasets import default_dataset_location

    return default_dataset_location(name)


def require_folder(root: Path, archive: Archive, download: bool) -> Path:
    """Return the folder of an archive below ``root``; fetch and extract the archive if it is not there.

    A bar shows the progress, the checksum is verified, and the folder appears only when it is complete.

    Raises:
        FileNotFoundError: if it is missing and may not or cannot be downloaded.
    """
    advice = f"get {archive.filename} from {archive.url} and extract it in {root}"
    return _require(root / archive.folder, download, partial(_fetch, root, archive), advice)


def require_file(folder: Path, name: str, url: str, md5: str, download: bool) -> Path:
    """Return the file ``name`` in ``folder``; fetch it from ``url`` if it is not there.

    Raises:
        FileNotFoundError: if it is missing and may not or cannot be downloaded.
    """
    return _require(folder / name, download, partial(_fetch_file, folder, name, url, md5), f"get it from {url}")


def _require(path: Path, download: bool, fetch: Callable[[], None], advice: str) -> Path:
    reason = ""
    if download and not path.exists():
        try:
            fetch()
        except (OSError, RuntimeError) as error:
            reason = f" (downloading it failed: {' '.join(str(error).split())})"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing{reason}: {advice}.")
    return path


def _fetch_file(folder: Path, name: str, url: str, md5: str) -> None:
    with _complete(folder) as incomplete:
        download_url(url, str(incomplete), name, md5)
        os.replace(incomplete / name, folder / name)


def _fetch(root: Path, archive: Archive) -> None:
    if not check_integrity(root / archive.filename, archive.md5):
        _fetch_file(root, archive.filename, archive.url, archive.md5)
    with _complete(root) as incomplete:
        extract_archive(str(root / archive.filename), str(incomplete))
        os.replace(incomplete / archive.folder, root / archive.folder)


@contextlib.contextmanager
def _complete(folder: Path) -> Iterator[Path]:
    """A place for what is not complete yet, in the folder that it belongs to; it goes with what is left there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as incomplete:
        yield Path(incomplete)
