"""Images and masks in files: read when they are needed, and checked before anything is trained."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from ftp_cl.benchmarks._checks import check_names, check_sides, readable
from ftp_cl.benchmarks._dataset import RebuildableDataset
from ftp_cl.benchmarks.dense.masks import BACKGROUND, IGNORED
from ftp_cl.benchmarks.dense.transforms import resized
from ftp_cl.benchmarks.image_files import AGAIN, is_image, read_image

Colours = Mapping[str, Sequence[int]]
_UNKNOWN = 254
_STRETCHED = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies grey of 2 and 4 bits."""


class MaskFiles(RebuildableDataset):
    """Pairs of an image and a mask in files; an item is as that of ``MaskDataset``.

    Masks are PNG files with class indices (grey or palette of 1 to 8 bits), or in colours if ``colours`` says which.

    Args:
        samples: path of the image and path of its mask, each pair once.
        classes: names of the class indices.
        ignored: values of pixels in the files that are not counted, beside 255.
        colours: class name -> red, green, blue; ``IGNORED`` is called "ignored". None: masks hold indices.
        size: height and width that images and masks are resized to; None for as they are, all of one size then.

    Raises:
        ValueError: two classes have one name or colour, or a colour or ``size`` is none; a mask is of another size than
            its image, or has values of no class (says how many pixels and where first); images are of several sizes; or
            a file is none of an image, or truncated (images: when they are read).
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, str]],
        classes: Sequence[str],
        ignored: Sequence[int] = (),
        colours: Colours | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        check_names("the masks", classes)
        check_sides(size)
        _check_colours(colours or {})
        self.samples, self.classes, self.ignored = [(str(a), str(b)) for a, b in samples], list(classes), list(ignored)
        self.colours = None if colours is None else {name: tuple(colour) for name, colour in colours.items()}
        self.size = None if size is None else tuple(size)
        self.targets = [BACKGROUND] * len(self.samples)
        self._values = np.full(256, _UNKNOWN, np.uint8)
        self._values[: len(classes)] = range(len(classes))
        self._values[[*self.ignored, IGNORED]] = IGNORED
        self.counts = self._checked()

    def with_pixels_of(self, classes: Sequence[int]) -> list[int]:
        """As ``MaskDataset`` has it."""
        return np.flatnonzero(self.counts[:, list(classes)].any(axis=1)).tolist()

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image = read_image(Path(self.samples[index][0]), viewed=False)
        mask = torch.from_numpy(self._mask(index).astype(np.int64))
        if self.size is None:
            return image, mask
        tensor, mask = resized(to_tensor(image), mask, (self.size[0], self.size[1]))
        return to_pil_image(tensor.clamp(0, 1)), mask

    def _mask(self, index: int) -> np.ndarray:
        path = self.samples[index][1]
        with readable(f"The mask {path}", AGAIN), Image.open(path) as file:
            mode, raw = file.mode, str(file.tile[0][3]) if file.tile else ""
            found = np.asarray(file if self.colours is None else file.convert("RGB"))
        if self.colours is None:
            if mode not in ("L", "P", "1"):
                means = "save class indices of 8 bits, or say what colours mean with colours={road: [128, 64, 128]}"
                raise ValueError(f"{path} has colours or more than 8 bits ({mode}): {means}.")
            return self._values[found.astype(np.uint8) // _STRETCHED.get(raw, 1)]
        codes = found.astype(np.int64) @ _CODE
        mask = np.full(codes.shape, _UNKNOWN, np.uint8)
        for name, colour in self.colours.items():
            label = IGNORED if name == "ignored" else self.classes.index(name)
            mask[codes == np.asarray(colour) @ _CODE] = label
        return mask

    def _checked(self) -> np.ndarray:
        """Read all masks once; return the number of pixels of each class, [N, classes]."""
        unknown, first, sizes = 0, "", set()
        counts = np.zeros((len(self.samples), len(self.classes)), np.int64)
        for index, (image, path) in enumerate(self.samples):
            mask = self._mask(index)
            with readable(f"The image {image}", AGAIN), Image.open(image) as file:
                width, height = file.size
            if mask.shape != (height, width):
                pixels = f"{mask.shape[1]} x {mask.shape[0]}"
                raise ValueError(f"{path} has {pixels} pixels, and its image {width} x {height}.")
            sizes.add((height, width))
            counted = np.bincount(mask.ravel(), minlength=256)
            counts[index] = counted[: len(self.classes)]
            unknown, first = unknown + int(counted[_UNKNOWN]), first or (path if counted[_UNKNOWN] else "")
        if unknown:
            outside = f"values outside the {len(self.classes)} classes"
            what = outside if self.colours is None else "colours that colours= does not name"
            raise ValueError(f"{unknown} pixels of the masks have {what}, the first in {first}.")
        if self.size is None and len(sizes) > 1:
            (one, *_, other) = sorted(sizes)
            raise ValueError(
                f"The images have several sizes, as {one[1]} x {one[0]} and {other[1]} x {other[0]}: say to which they "
                "are resized, resize=[height, width]."
            )
        return counts


_CODE = np.array([65536, 256, 1])


def _check_colours(colours: Colours) -> None:
    names: dict[tuple[int, ...], str] = {}
    for name, colour in colours.items():
        if len(colour) != 3 or any(not isinstance(value, Integral) or not 0 <= value <= 255 for value in colour):
            raise ValueError(f"The colour of {name} is {list(colour)}, and must be red, green and blue from 0 to 255.")
        if (other := names.setdefault(tuple(colour), name)) != name:
            raise ValueError(f"{other} and {name} have the same colour, {list(colour)}: give each its own.")


def paired(images: Path, masks: Path) -> list[tuple[str, str]]:
    """Return the images of a folder, each with the mask of the same name, a PNG file.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no image, an image has no mask, a mask no image, or two images one mask.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}.")
    found = sorted(path for path in images.iterdir() if is_image(path.name) and path.name[0] != ".")
    if not found:
        raise ValueError(f"The folder {images} has no images.")
    pairs = [(path, masks / f"{path.stem}.png") for path in found]
    if missing := [(path, mask) for path, mask in pairs if not mask.is_file()]:
        raise ValueError(f"{len(missing)} images have no mask: {missing[0][0]}, the first, needs {missing[0][1]}.")
    image_of = {mask: path for path, mask in pairs}
    for path, mask in pairs:
        if (other := image_of[mask]) != path:
            raise ValueError(f"{path} and {other} would have one mask, {mask}: rename one, and give it its own.")
    if surplus := sorted(mask for mask in masks.glob("[!.]*.png") if mask not in image_of):
        raise ValueError(f"{len(surplus)} masks have no image: {surplus[0]}, the first, needs one in {images}.")
    return [(str(path), str(mask)) for path, mask in pairs]


def refuse_empty_classes(datasets: Sequence[Any], what: str) -> None:
    """Raise ValueError if a class has no pixel in any of these datasets; ``what`` says which they are."""
    counts = sum(dataset.counts.sum(axis=0) for dataset in datasets)
    if empty := [name for name, count in zip(datasets[0].classes, counts, strict=True) if not count]:
        raise ValueError(f"No pixel of {what} is of the class {', '.join(empty)}: leave it out, or add images with it.")
