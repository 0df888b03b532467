"""Datasets of image files that are decoded when they are read, for data sets too large for memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.functional import center_crop, resize

from ftp_cl.benchmarks._checks import check_size
from ftp_cl.benchmarks._dataset import RebuildableDataset

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""What counts as an image in a folder, in upper or lower case."""

_SIZES = (8, 1024)

_SIXTEEN_BITS = 65535

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no image, damaged or truncated."""


class ImageFiles(RebuildableDataset):
    """A labelled dataset of image files.

    An item is ``(image, target)``: a PIL image in RGB of ``size`` x ``size`` pixels (the shorter side is resized, then
    the middle is cut out; as it is stored if ``size`` is None) and the class index. Other modes become RGB, see
    ``as_rgb``. Subclasses call ``_set_files``.

    Attributes:
        root: the folder that ``paths`` start from.
        paths: of the images, with forward slashes.
        targets: class index per item.
        classes: the class names; a target is a position in this list.
        size: side of the images in pixels, 8 to 1024, or None.
    """

    def _set_files(
        self, root: Path, paths: Sequence[str], targets: Sequence[int], classes: Sequence[str], size: int | None
    ) -> None:
        if size is not None:
            check_size(size, *_SIZES)
        self.root = root
        self.paths = list(paths)
        self.targets = list(targets)
        self.classes = list(classes)
        self.size = size

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return _cut(read_image(self.root / self.paths[index]), self.size), self.targets[index]

    def stored_image(self, index: int) -> StoredImage:
        """Return the image of an item undecoded and without its path, which may tell the class."""
        return StoredImage((self.root / self.paths[index]).read_bytes(), self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root}; {len(self)} images of {len(self.classes)} classes)"


@dataclass(frozen=True)
class StoredImage:
    """An image file in memory, as it is stored.

    Attributes:
        content: of the file.
        size: see ``ImageFiles``.
    """

    content: bytes
    size: int | None

    @property
    def is_compact(self) -> bool:
        """Whether it takes less memory than the pixels that it is decoded to; a large photograph may take more."""
        return self.size is None or len(self.content) < 3 * self.size**2

    def decode(self) -> Image.Image:
        """Return what ``ImageFiles`` gives for the file.

        Raises:
            ValueError: if it is no image, or truncated.
        """
        try:
            with Image.open(BytesIO(self.content)) as image:
                return _cut(as_rgb(image), self.size)
        except UNREADABLE as error:
            raise ValueError(
                f"An image file that was copied cannot be read ({error}): go through the data set to find it."
            ) from None


def _cut(image: Image.Image, size: int | None) -> Image.Image:
    return image if size is None else center_crop(resize(image, [size]), [size, size])


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB: grey, palette and CMYK converted, 16 bits as 8, what is transparent on white.

    Integers of more than 8 bits whose values do not exceed 255 stay as they are.

    Raises:
        ValueError: for an image of floating point numbers, or of integers beyond 16 bits, whose range is unknown.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.int64)
        if values.min() < 0 or values.max() > _SIXTEEN_BITS:
            raise ValueError(f"its values, {values.min()} to {values.max()}, are not those of 8 or 16 bits")
        image = Image.fromarray((values // (257 if values.max() > 255 else 1)).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it holds floating point numbers, whose range is unknown")
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return image.convert("RGB")


def read_image(path: Path) -> Image.Image:
    """Return an image file in RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            return as_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"The image {path} is missing.") from None
    except UNREADABLE as error:
        raise ValueError(f"The image {path} cannot be read ({error}): get it again, or remove it.") from None


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list file without those that are empty at its end.

    Raises:
        ValueError: if it is no text.
    """
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file (byte {error.start} is not UTF-8): get it again.") from None


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in ``root``, sorted, without hidden ones.

    Raises:
        FileNotFoundError: if ``root`` is no folder.
        ValueError: if there is none in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"The folder {root} is missing: it should hold one folder of images per class.")
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ValueError(f"The folder {root} holds no folders: it should hold one folder of images per class.")
    return names


def images_in(root: Path, folder: str) -> list[str]:
    """Return the paths, from ``root``, of the images in one of its folders, sorted.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there is no image in it.
    """
    if not (root / folder).is_dir():
        raise FileNotFoundError(f"The folder {root / folder} is missing.")
    names = sorted(entry.name for entry in os.scandir(root / folder) if _is_image(entry.name))
    if not names:
        raise ValueError(f"The folder {root / folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return [f"{folder}/{name}" for name in names]


def check_files(root: Path, paths: Iterable[str], named_by: Path) -> None:
    """Check that the files a list names exist and are not empty, with one look at each folder.

    Raises:
        FileNotFoundError: naming the first that is missing or empty, and how many there are.
    """
    folders: dict[str, dict[str, int]] = {}
    wrong = []
    count = 0
    for path in paths:
        count += 1
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = _sizes_in(root / folder)
        if not folders[folder].get(name):
            wrong.append(path)
    if wrong:
        raise FileNotFoundError(
            f"{len(wrong)} of the {count} images that {named_by} names are missing or empty, the first is "
            f"{root / wrong[0]}."
        )


def _sizes_in(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder)}


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
