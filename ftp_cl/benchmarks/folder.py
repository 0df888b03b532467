"""image_folder: any images of one's own, one folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks._checks import check_names, composed
from ftp_cl.benchmarks.image_files import ImageFiles, class_folders, images_in, is_image

if TYPE_CHECKING:
    from ftp_cl.benchmarks.scenario import DescribedScenario


class ImageFolder(ImageFiles):
    """A folder with one folder of images per class; images are decoded when they are read.

    An item is ``(image, target)``: a PIL image in RGB, see ``ImageFiles`` and ``as_viewed``; a target is a position
    among the sorted names of the folders. Images in folders below that of a class belong to it. Hidden files and
    folders, and files that are called like no image, are left out. Names that differ only in how their letters are
    composed (é as one character or as two) are one name.

    Args:
        root: holds ``<class>/<image>``.
        size: side of the images in pixels; None for as they are.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no folders, or one of them no images, or two of them one name, or an image lies beside
            them.
    """

    as_viewed = True

    def __init__(self, root: str | Path, size: int | None = 224) -> None:
        root = Path(root)
        folders = sorted(class_folders(root), key=composed)
        check_names(str(root), folders)
        if beside := sorted(e.name for e in os.scandir(root) if is_image(e.name) and e.name[0] != "." and e.is_file()):
            raise ValueError(f"The image {root / beside[0]} lies beside the folders of the classes: put it into one.")
        items = [(path, target) for target, name in enumerate(folders) for path in images_in(root, name, nested=True)]
        classes = [composed(name) for name in folders]
        self._set_files(root, [path for path, _ in items], [target for _, target in items], classes, size)

    def image_identity(self, index: int) -> bytes:
        """Return a digest of the file: in folders of one's own, the same path may be another image."""
        return hashlib.blake2b(self.stored_image(index).content, digest_size=16).digest()

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal dataset."""
        return {"root": self.root, "size": self.size}


def image_folder(
    dataset_root: str | Path,
    n_experiences: int = 1,
    seed: int = 0,
    *,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
    corruption_cache: str | Path | None = None,
    size: int = 224,
    shots: int | None = None,
    validation_fraction: float | None = None,
    fixed_class_order: Sequence[int] | None = None,
    first_exp_with_half_classes: bool = False,
    return_task_id: bool = False,
    train_transform: Callable[[Any], Any] | None = to_tensor,
    eval_transform: Callable[[Any], Any] | None = to_tensor,
) -> DescribedScenario:
    """Images of your own in folders train/, test/ and ood_*/, each with one folder per class.

    The streams are ``train``, ``test``, ``validation`` if asked for, one per folder ``ood_<name>``, which may have a
    part of the classes, and one ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        dataset_root: holds ``train/<class>/<image>``, ``test/<class>/<image>`` with the same classes, and any number
            of ``ood_<name>/<class>/<image>``.
        n_experiences: it must divide the number of classes (see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        corruptions: names of ``CORRUPTIONS``, or "all"; None for none.
        severities: 1 (weak) to 5.
        corruption_cache: where to keep corrupted images; None keeps none.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        shots: training images per class; None for all. Fewer shots are a subset of more.
        validation_fraction: share of each class's training images that is set aside; None for none.
        fixed_class_order: the class indices in order of arrival, instead of the order drawn.
        first_exp_with_half_classes: half of the classes arrive first, the others in n_experiences - 1 equal parts.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image of size x size; the default is a float tensor [3, size, size] in [0, 1], for
            the models of this package normalise their inputs themselves.
        eval_transform: the same for evaluation.

    Returns:
        An Avalanche scenario; its ``description`` records the settings, classes and sizes.

    Raises:
        FileNotFoundError: in one sentence, if a folder is missing.
        ValueError: in one sentence, for an argument that is out of range, classes that differ, or an empty folder.
    """
    # Importing Avalanche takes seconds, which users of the dataset alone need not wait.
    from ftp_cl.benchmarks.class_incremental import ClassSplit, split_classes
    from ftp_cl.benchmarks.corruptions import with_corruptions
    from ftp_cl.benchmarks.ood import with_ood

    root = Path(dataset_root).expanduser()
    train, test = (ImageFolder(root / part, size) for part in ("train", "test"))
    if differ := sorted(set(train.classes) ^ set(test.classes)):
        raise ValueError(
            f"train/ and test/ in {root} must have the same classes, but only one of them has {', '.join(differ)}."
        )
    split = ClassSplit(
        n_experiences,
        seed,
        shots=shots,
        validation_fraction=validation_fraction,
        fixed_class_order=fixed_class_order,
        first_exp_with_half_classes=first_exp_with_half_classes,
        return_task_id=return_task_id,
        train_transform=train_transform,
        eval_transform=eval_transform,
    )
    benchmark = split_classes("image_folder", train, test, split, {"size": size})
    ood: dict[str, Any] = {
        folder.name.removeprefix("ood_"): ImageFolder(folder, size)
        for folder in sorted(root.glob("ood_*"))
        if folder.is_dir()
    }
    for taken in ("class_names", "rename", "eval_transform"):
        if taken in ood:
            raise ValueError(f"The folder ood_{taken} in {root} has a name that means something else: rename it.")
    return with_corruptions(with_ood(benchmark, **ood), corruptions or (), severities, cache=corruption_cache)
