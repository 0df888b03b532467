"""split_tiny_imagenet: 200 classes of ImageNet at 64 pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ftp_cl.benchmarks._checks import Size, check_choice
from ftp_cl.benchmarks.download import Archive, data_root, require_folder
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, images_in, read_lines
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

_ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"
)


class TinyImageNet(ImageFiles):
    """Tiny ImageNet; images are decoded when they are read. The published validation part serves as test part.

    An item is ``(image, target)``, see ``ImageFiles``; a target is a position in ``wnids.txt``.

    Args:
        root: holds ``tiny-imagenet-200/`` with ``wnids.txt``, ``train/<wnid>/images/*.JPEG``, ``val/images/*.JPEG`` and
            ``val/val_annotations.txt``.
        split: ``"train"`` (100,000 images) or ``"test"`` (10,000).
        size: side of the images in pixels; stored are 64.
        download: fetch the archive (237 MB) if the folder is missing.

    Attributes:
        classes: WordNet IDs (n02124075, ...).

    Raises:
        FileNotFoundError: if data is missing, also an image that the annotations name.
        ValueError: for an unknown split, or annotations that cannot be read.

    Source:
        Le and Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS 231N, 2015.
    """

    def __init__(self, root: str | Path, split: str, size: Size | None = 64, download: bool = False) -> None:
        check_choice("split", split, ("train", "test"))
        self.parent, self.split = Path(root), split
        folder = require_folder(self.parent, _ARCHIVE, download)
        classes = _lines_of(folder / "wnids.txt")
        if split == "train":
            items = [(path, c) for c, wnid in enumerate(classes) for path in images_in(folder, f"train/{wnid}/images")]
        else:
            items = _test_items(folder, classes)
        self._set_files(folder, items, classes, size)


def _lines_of(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: extract {_ARCHIVE.filename} again.")
    return read_lines(path)


def _test_items(folder: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    annotations = folder / "val" / "val_annotations.txt"
    target_of = {wnid: target for target, wnid in enumerate(classes)}
    items = []
    for number, line in enumerate(_lines_of(annotations), start=1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in target_of:
            raise ValueError(
                f"{annotations}, line {number}: {line!r} is not '<file> TAB <WordNet ID of wnids.txt> TAB <box>'."
            )
        items.append((f"val/images/{name}", target_of[wnid]))
    check_files(folder, [path for path, _ in items], named_by=annotations)
    return items


@takes(ClassOptions)
def split_tiny_imagenet(
    n_experiences: int | Sequence[int] = 10,
    seed: int = 0,
    *,
    size: Size = 64,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """Tiny ImageNet, 200 classes at 64 pixels, in experiences, with corruptions as OOD streams.

    The streams are ``train``, ``test`` (the published validation part, as usual), ``validation`` if asked for, and one
    ``ood_<corruption>_<severity>`` per corruption and severity. The constants of corruptions are those of ImageNet-C,
    stronger than those of Tiny-ImageNet-C.

    Args:
        n_experiences: 10 and 20 are usual; it must divide the number of classes (or a list of how many classes each
            has; see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        size: side of the images in pixels, 8 to 1024; images are corrupted at this size.
        dataset_root: holds ``tiny-imagenet-200/``; None for ~/.avalanche/data/tinyimagenet.
        download: fetch the archive if it is missing (237 MB), with progress and checksum.
        options: see ``ClassOptions``.
    """
    root = data_root(dataset_root, "tinyimagenet")
    train, test = (TinyImageNet(root, part, size, download) for part in ("train", "test"))
    return class_benchmark(
        "split_tiny_imagenet", train, test, {"size": size}, n_experiences=n_experiences, seed=seed, **options
    )
