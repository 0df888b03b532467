"""Datasets of image files that are decoded when they are read, for data sets too large for memory."""

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms.functional import center_crop, resize

from ftp_cl.benchmarks._checks import Size, check_size, readable, side_of
from ftp_cl.benchmarks._dataset import RebuildableDataset

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"),
    *(".jpe", ".jfif", ".pgm", ".pbm", ".pnm", ".apng", ".avif", ".heic", ".heif", ".jp2", ".tga"),
)
"""What counts as an image in a folder, in upper or lower case; one that Pillow cannot read is named when it is read."""

AGAIN = "get it again, or remove it"
"""What to do with a damaged file."""

_SIXTEEN_BITS = 65535
_FOURTEEN_BITS = 16383

_LONGEST = 16
"""Of an image that is longer than this many times its shorter side, the middle is taken before it is resized."""


class ImageFiles(RebuildableDataset):
    """A labelled dataset of image files.

    An item is ``(image, target)``: a PIL image in RGB of ``size`` x ``size`` pixels (the shorter side is resized, then
    the middle is cut out; as it is stored if ``size`` is None) and the class index. Published data are read as their
    reference code reads them, by Pillow's ``convert("RGB")`` alone: not turned as EXIF says, what is transparent in the
    colours that lie below. Pixels of more than 8 bits, which that would cut off, are read as a viewer shows them.
    Subclasses call ``_set_files``, and set ``parent``.

    Attributes:
        root: the folder that ``paths`` start from.
        parent: the folder that the data set was made with.
        paths: of the images, with forward slashes.
        targets: class index per item.
        classes: the class names; a target is a position in this list.
        size: side of the images in pixels, 8 to 1024; a function that resizes and cuts instead, or None.
        as_viewed: read images as a viewer shows them instead, see ``as_viewed``.
    """

    as_viewed = False
    parent: Path

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal dataset; ``root`` may be a folder in the one given."""
        return {**super().constructor_arguments(), "root": self.parent}

    def _set_files(
        self, root: Path, items: Iterable[tuple[str, int]], classes: Sequence[str], size: Size | None
    ) -> None:
        if size is not None:
            check_size(size, 8, 1024)
        items = list(items)
        self.root, self.classes, self.size = root, list(classes), size
        self.paths, self.targets = [path for path, _ in items], [target for _, target in items]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return _cut(read_image(self.root / self.paths[index], self.as_viewed), self.size), self.targets[index]

    def image_identity(self, index: int) -> Hashable:
        """Return the path of an image in the published data."""
        return type(self).__name__, self.paths[index]

    def stored_image(self, index: int) -> "StoredImage":
        """Return the image of an item undecoded and without its path, which may tell the class."""
        path = self.root / self.paths[index]
        _check_file(path)
        return StoredImage(path.read_bytes(), self.size, self.as_viewed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root}; {len(self)} images of {len(self.classes)} classes)"


@dataclass(frozen=True)
class StoredImage:
    """An image file in memory, as it is stored.

    Attributes:
        content: of the file.
        size: see ``ImageFiles``.
        as_viewed: see ``ImageFiles``.
    """

    content: bytes
    size: Size | None
    as_viewed: bool

    @property
    def is_compact(self) -> bool:
        """Whether it takes less memory than the pixels that it is decoded to; a large photograph may take more."""
        return self.size is None or len(self.content) < 3 * side_of(self.size) ** 2

    def decode(self) -> Image.Image:
        """Return what ``ImageFiles`` gives for the file.

        Raises:
            ValueError: if it is no image, or truncated.
        """
        what, advice = "An image file that was copied", "go through the data set to find it"
        with readable(what, advice), Image.open(BytesIO(self.content)) as image:
            return _cut(_as_rgb(image, self.as_viewed), self.size)


def _cut(image: Image.Image, size: Size | None) -> Image.Image:
    if size is None:
        return image
    longest = _LONGEST * min(image.size)
    if max(image.size) > longest:
        image = center_crop(image, [min(image.height, longest), min(image.width, longest)])
    return size(image) if callable(size) else center_crop(resize(image, [size]), [size, size])


def _as_rgb(image: Image.Image, viewed: bool) -> Image.Image:
    if 0 in image.size:
        raise ValueError("it has no pixels")
    return as_viewed(image) if viewed or image.mode[0] in "IF" else image.convert("RGB")


def as_viewed(image: Image.Image) -> Image.Image:
    """Return an image in RGB as a viewer shows it.

    It is turned as EXIF says; grey, palette and CMYK are converted, 16 bits become 8, what is transparent white. Of an
    animation it is the first picture. Integers of more than 8 bits whose values do not exceed 255 stay as they are.

    Raises:
        ValueError: for an image whose range is unknown: of floating point numbers, of integers beyond 16 bits, or of 16
            bits whose values need 14 or fewer, which may be an image of 10, 12 or 14 bits.
    """
    deep = ";16" in str(getattr(image, "tile", "")) or image.mode.startswith("I")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.int64)
        if values.min() < 0 or values.max() > _SIXTEEN_BITS:
            raise ValueError(f"its values, {values.min()} to {values.max()}, are not those of 8 or 16 bits")
        if values.max() > 255:
            _check_range(int(values.max()))
            values = values // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("it holds floating point numbers, whose range is unknown")
    if deep:
        _check_range(256 * int(np.asarray(image.convert("RGB")).max()))
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return image.convert("RGB")


def _check_range(largest: int) -> None:
    if largest <= _FOURTEEN_BITS:
        raise ValueError(
            f"its largest value is about {largest} of {_SIXTEEN_BITS}, as in images of 10, 12 or 14 bits, which would "
            "be read too dark; save it with 8 bits"
        )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"The image {path} is missing.")
    if not path.is_file():
        # Reading a pipe would wait for ever.
        raise ValueError(f"The image {path} is no file: remove it.")


def read_image(path: Path, viewed: bool = True) -> Image.Image:
    """Return an image file in RGB: as a viewer shows it, or by Pillow's ``convert("RGB")`` alone.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or truncated.
    """
    _check_file(path)
    with readable(f"The image {path}", AGAIN), Image.open(path) as image:
        return _as_rgb(image, viewed)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list file without those that are empty at its end, nor a byte order mark.

    Raises:
        ValueError: if it is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file (byte {error.start} is not UTF-8): get it again.") from None


def ood_folders(root: Path) -> dict[str, Path]:
    """Return name -> folder for each folder ``ood_<name>`` in ``root``."""
    return {folder.name.removeprefix("ood_"): folder for folder in sorted(root.glob("ood_*")) if folder.is_dir()}


def class_folders(root: Path) -> list[str]:
    """Return the names of the folders in ``root``, sorted, without hidden ones.

    Raises:
        FileNotFoundError: if ``root`` is no folder.
        ValueError: if there is none in it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"The folder {root} is missing: it should hold one folder of images per class.")
    names = sorted(entry.name for entry in _entries(root) if entry.is_dir())
    if not names:
        raise ValueError(f"The folder {root} holds no folders: it should hold one folder of images per class.")
    return names


def images_in(root: Path, folder: str, nested: bool = False) -> list[str]:
    """Return the paths, from ``root``, of the images in one of its folders, sorted; ``nested``, also of those below it.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if there is no image in it, or what is called like an image is no file.
    """
    if not (root / folder).is_dir():
        raise FileNotFoundError(f"The folder {root / folder} is missing.")
    paths = list(_images_below(root, folder, nested, ()))
    if not paths:
        raise ValueError(f"The folder {root / folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return sorted(paths)


def _images_below(root: Path, folder: str, nested: bool, above: tuple[str, ...]) -> Iterator[str]:
    real = os.path.realpath(root / folder)
    if real in above:
        raise ValueError(f"The folder {root / folder} is a link to a folder that it lies in: remove it.")
    for entry in _entries(root / folder):
        if nested and entry.is_dir():
            yield from _images_below(root, f"{folder}/{entry.name}", nested, (*above, real))
        elif is_image(entry.name):
            _check_file(Path(entry.path))
            yield f"{folder}/{entry.name}"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, without what is hidden."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise ValueError(f"{entry.path} is a link to nothing: remove it, or bring back what it leads to.")
    return entries


class FileSizes:
    """Sizes of files in bytes, with one look at each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, int]] = {}

    def of(self, path: str | Path) -> int:
        """Return the size of a file, -1 if it is not there."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            entries = os.scandir(folder) if os.path.isdir(folder) else ()
            self._folders[folder] = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return self._folders[folder].get(name, -1)


def check_files(root: Path, paths: Iterable[str], named_by: Path) -> None:
    """Check that the files a list names exist and are not empty.

    Raises:
        FileNotFoundError: naming the first that is missing or empty, and how many there are.
    """
    sizes, paths = FileSizes(), list(paths)
    if wrong := [path for path in paths if sizes.of(root / path) <= 0]:
        raise FileNotFoundError(
            f"{len(wrong)} of the {len(paths)} images that {named_by} names are missing or empty, the first is "
            f"{root / wrong[0]}."
        )


def is_image(name: str) -> bool:
    """Return whether a file of this name counts as an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)
