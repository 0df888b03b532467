"""image_folder: your own images, one folder per class."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ftp_cl.benchmarks._checks import Size, check_names, composed
from ftp_cl.benchmarks.image_files import ImageFiles, class_folders, images_in, is_image, ood_folders
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes


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

    def __init__(self, root: str | Path, size: Size | None = 224) -> None:
        self.parent = root = Path(root)
        folders = sorted(class_folders(root), key=composed)
        check_names(str(root), folders)
        if beside := sorted(e.name for e in os.scandir(root) if is_image(e.name) and e.name[0] != "." and e.is_file()):
            raise ValueError(f"The image {root / beside[0]} lies beside the folders of the classes: put it into one.")
        items = [(path, target) for target, name in enumerate(folders) for path in images_in(root, name, nested=True)]
        classes = [composed(name) for name in folders]
        self._set_files(root, items, classes, size)

    def image_identity(self, index: int) -> bytes:
        """Return a digest of the file: in folders of your own, the same path may be another image."""
        return hashlib.blake2b(self.stored_image(index).content, digest_size=16).digest()


@takes(ClassOptions)
def image_folder(
    dataset_root: str | Path,
    n_experiences: int | Sequence[int] = 1,
    seed: int = 0,
    *,
    size: Size = 224,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """Images of your own in folders train/, test/ and ood_*/, each with one folder per class.

    The streams are ``train``, ``test``, ``validation`` if asked for, one per folder ``ood_<name>``, which may have a
    part of the classes, and one ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        dataset_root: holds ``train/<class>/<image>``, ``test/<class>/<image>`` with the same classes, and any number
            of ``ood_<name>/<class>/<image>``.
        n_experiences: it must divide the number of classes (or a list of how many classes each has; see also
            ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        options: see ``ClassOptions``.
    """
    root = Path(dataset_root).expanduser()
    train, test = (ImageFolder(root / part, size) for part in ("train", "test"))
    if differ := sorted(set(train.classes) ^ set(test.classes)):
        raise ValueError(
            f"train/ and test/ in {root} must have the same classes, but only one of them has {', '.join(differ)}."
        )
    ood = {name: ImageFolder(folder, size) for name, folder in ood_folders(root).items()}
    return class_benchmark(
        "image_folder", train, test, {"size": size}, ood, n_experiences=n_experiences, seed=seed, **options
    )
