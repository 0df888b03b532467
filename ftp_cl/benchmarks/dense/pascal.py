"""pascal_context: the multi-task release of PASCAL-Context, with masks, human parts and surface normals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torchvision.transforms.functional import to_pil_image, to_tensor

from ftp_cl.benchmarks._checks import check_choice, check_sides, readable
from ftp_cl.benchmarks._dataset import RebuildableDataset
from ftp_cl.benchmarks.dense.masks import BACKGROUND, IGNORED
from ftp_cl.benchmarks.dense.transforms import resized
from ftp_cl.benchmarks.image_files import AGAIN, read_image
from ftp_cl.benchmarks.options import DescribedScenario

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 21 classes of segmentation, by index."""

PART_CLASSES = ("background", "head", "torso", "upper_arm", "lower_arm", "upper_leg", "lower_leg")
"""The seven classes of human parts, by index."""

TARGETS = ("segmentation", "human_parts", "normals")

_PARTS = {
    "head": "hair head lear lebrow leye mouth nose rear rebrow reye",
    "torso": "neck torso",
    "upper_arm": "luarm ruarm",
    "lower_arm": "lhand llarm rhand rlarm",
    "upper_leg": "luleg ruleg",
    "lower_leg": "lfoot llleg rfoot rlleg",
}
_CLASS_OF_PART = {part: PART_CLASSES.index(name) for name, parts in _PARTS.items() for part in parts.split()}
_PERSON = 15

# Of the 459 labels of PASCAL-Context those whose names NYU-Depth has too (its network is where the normals come from),
# and tvmonitor: the release is to be trusted there alone.
_WITH_NORMALS = (
    *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56),
    *(59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124),
    *(135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202),
    *(213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261),
    *(263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314),
    *(315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383),
    *(384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442),
    *(443, 444, 446, 454, 457),
)


class PascalContext(RebuildableDataset):
    """Images of PASCAL-Context with one of its targets, read when they are needed.

    An item is ``(image, target)``: a PIL image in RGB, and an int64 mask [height, width] where 255 is ignored, or float
    normals [3, height, width] of length 1, zeros where unknown. Laid out as facebookresearch/astmt reads it
    (Maninis, Radosavovic and Kokkinos, "Attentive Single-Tasking of Multiple Tasks", CVPR 2019, arXiv 1904.08918).

    Args:
        root: holds JPEGImages, ImageSets/Context, semseg/VOC12, semseg/pascal-context, human_parts, normals_distill and
            pascal-context/trainval.
        split: "train" or "val", a list in ImageSets/Context.
        target: "segmentation" (21 classes), "human_parts" (7; images without people are left out) or "normals".
        size: height and width that images and targets are resized to.

    Raises:
        FileNotFoundError: a list or a file of an image in it is not there.
        ValueError: no image is left; when an item is read, a target is of another size than its image, has values
            outside the classes, or normals whose length is outside 0.9 to 1.1.
    """

    def __init__(self, root: str, split: str, target: str, size: Sequence[int]) -> None:
        check_choice("target", target, TARGETS)
        check_sides(size)
        self.root, self.split, self.target, self.size = str(root), split, target, tuple(size)
        listed = Path(root, "ImageSets", "Context", f"{split}.txt")
        names = [line.strip() for line in _existing(listed).read_text().split("\n") if line.strip()]
        if target == "human_parts":
            names = [name for name in names if any(np.any(person[2]) for person in _people(self._file(name)))]
        if not names:
            raise ValueError(f"{listed} lists no image{' with people' if target == 'human_parts' else ''}.")
        images = [_existing(Path(root, "JPEGImages", f"{name}.jpg")) for name in names]
        self.samples = [(str(image), str(self._file(name))) for image, name in zip(images, names, strict=True)]
        self.classes = list({"segmentation": VOC_CLASSES, "human_parts": PART_CLASSES, "normals": ()}[target])
        self.targets = [BACKGROUND] * len(names)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image = to_tensor(read_image(Path(self.samples[index][0]), viewed=False))
        path = Path(self.samples[index][1])
        read = {"segmentation": _mask, "human_parts": _parts, "normals": self._normals}[self.target]
        target = torch.from_numpy(read(path))
        if target.shape[-2:] != image.shape[-2:]:
            sizes = [f"{part.shape[-1]} x {part.shape[-2]}" for part in (target, image)]
            raise ValueError(f"{path} has {sizes[0]} pixels, and its image {sizes[1]}.")
        image, target = resized(image, target, (self.size[0], self.size[1]))
        return to_pil_image(image.clamp(0, 1)), target

    def _file(self, name: str) -> Path:
        root = Path(self.root)
        if self.target == "segmentation":
            voc = root / "semseg" / "VOC12" / f"{name}.png"
            return voc if voc.is_file() else _existing(root / "semseg" / "pascal-context" / f"{name}.png")
        if self.target == "human_parts":
            return _existing(root / "human_parts" / f"{name}.mat")
        _existing(root / "pascal-context" / "trainval" / f"{name}.mat")
        return _existing(root / "normals_distill" / f"{name}.png")

    def _normals(self, path: Path) -> np.ndarray:
        with readable(f"The image {path}", AGAIN), Image.open(path) as file:
            normals = 2 * np.asarray(file.convert("RGB"), np.float32) / 255 - 1
        labels = _matlab(Path(self.root, "pascal-context", "trainval", f"{path.stem}.mat"), "LabelMap")
        if labels.shape != normals.shape[:2]:
            raise ValueError(f"{path} and the labels of its image differ in size: {normals.shape[:2]}, {labels.shape}.")
        lengths = np.linalg.norm(normals, axis=2)
        # Eight bits have no 0: the nearest value to it stands for what is unknown.
        known = np.isin(labels, _WITH_NORMALS) & (lengths > 0.01)
        if wrong := int((known & (np.abs(lengths - 1) > 0.1)).sum()):
            raise ValueError(f"{wrong} normals in {path} have a length outside 0.9 to 1.1.")
        unit = np.divide(normals, lengths[..., None], out=np.zeros_like(normals), where=known[..., None])
        return np.ascontiguousarray(np.moveaxis(unit, 2, 0))


def pascal_context(
    dataset_root: str | Path,
    target: str = "segmentation",
    seed: int = 0,
    *,
    resize: Sequence[int] = (256, 256),
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
) -> DescribedScenario:
    """One target of PASCAL-Context: training on its list ``train``, test on ``val``; corruptions are OOD streams.

    Args:
        dataset_root: see ``PascalContext``.
        target: see ``PascalContext``.
        seed: as all benchmarks take it; draws nothing.
        resize: height and width of images and targets, for images come in many sizes.
        corruptions: as for ``with_corruptions``; images alone are corrupted.
        severities: 1 (weak) to 5, one or several.

    Raises:
        FileNotFoundError, ValueError: as ``PascalContext``.
    """
    from ftp_cl.benchmarks.dense.streams import mask_domains

    root = str(Path(dataset_root).expanduser())
    train, test = (PascalContext(root, split, target, resize) for split in ("train", "val"))
    settings = {"benchmark": "pascal_context", "target_of_pascal": target, "resize": list(resize)}
    return mask_domains([{"train": train, "test": test}], {}, settings, names=corruptions or (), severities=severities)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}, which the multi-task release of PASCAL-Context has.")
    return path


def _mask(path: Path) -> np.ndarray:
    with readable(f"The mask {path}", AGAIN), Image.open(path) as file:
        mask = np.asarray(file).astype(np.int64)
    if mask.ndim != 2 or (wrong := int(((mask >= len(VOC_CLASSES)) & (mask != IGNORED)).sum())):
        what = "has colours in place of class indices" if mask.ndim != 2 else f"has {wrong} pixels of no class"
        raise ValueError(f"{path} {what}.")
    return mask


def _matlab(path: Path, name: str) -> Any:
    """Return an array of a MATLAB file."""
    with readable(f"The file {path}", AGAIN):
        try:
            return loadmat(path)[name]
        except KeyError:
            raise ValueError(f"it has no {name}") from None
        except (MatReadError, NotImplementedError, TypeError) as error:  # the second for the format of version 7.3
            raise ValueError(error) from None


def _people(path: Path) -> list[Any]:
    """Return the objects of a file of parts that are people: records of name, class, mask and parts, in this order."""
    objects = _matlab(path, "anno")[0, 0][1]
    return [found for found in objects.ravel() if int(np.asarray(found[1]).ravel()[0]) == _PERSON]


def _parts(path: Path) -> np.ndarray:
    """Return the mask; all of it ignored where no part is annotated, for such people have parts, too."""
    people = _people(path)
    mask = np.zeros(np.asarray(people[0][2]).shape, np.int64)
    for person in people:
        for part in np.asarray(person[3]).ravel():
            name = str(np.asarray(part[0]).ravel()[0])
            if name not in _CLASS_OF_PART:
                raise ValueError(f"{path} has a part of a person called {name!r}, which is none of PASCAL-Part's.")
            mask[np.asarray(part[1]).astype(bool)] = _CLASS_OF_PART[name]
    return mask if mask.any() else np.full_like(mask, IGNORED)
