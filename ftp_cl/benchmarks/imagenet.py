"""imagenet: the 1,000 classes of ImageNet, with ImageNet-V2, -A, -R and -Sketch as OOD streams."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ftp_cl.benchmarks._checks import Size, check_choices
from ftp_cl.benchmarks.image_files import ImageFiles, class_folders, images_in
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

_SETS = {
    "v2": ("imagenetv2-matched-frequency-format-val", "https://imagenetv2.org/"),
    "a": ("imagenet-a", "https://github.com/hendrycks/natural-adv-examples"),
    "r": ("imagenet-r", "https://github.com/hendrycks/imagenet-r"),
    "sketch": ("sketch", "https://github.com/HaohanWang/ImageNet-Sketch"),
}
"""Name -> the folder in the published archive, and where it is published."""


class ImageNet(ImageFiles):
    """A folder with one folder of images per WordNet ID, or per number as ImageNet-V2 has; decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``; a target is a position in ``classes``.

    Args:
        root: holds ``<WordNet ID>/<image>``, or ``<number>/<image>``.
        size: side of the images in pixels; None for as they are.
        numbered: the WordNet IDs of the benchmark, which folders with numbers are about: in their sorted order, folder
            2 before folder 10, as long as no number goes beyond them; otherwise in the order of the 1,000 classes of
            ImageNet, of which they are a part. None where folders have WordNet IDs.

    Attributes:
        classes: WordNet IDs, sorted.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if a folder is called otherwise, holds no images, or has a number that means no class.

    Source:
        Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv 1409.0575; V2: Recht
        et al., ICML 2019, arXiv 1902.10811; A: Hendrycks et al., CVPR 2021, arXiv 1907.07174; R: Hendrycks et al., ICCV
        2021, arXiv 2006.16241; Sketch: Wang et al., NeurIPS 2019, arXiv 1905.13549.
    """

    def __init__(self, root: str | Path, size: Size | None = 224, numbered: Sequence[str] | None = None) -> None:
        self.parent = root = Path(root)
        self.numbered = numbered
        folder_of = {name: name for name in class_folders(root)}
        if numbered is not None and any(name.isdecimal() for name in folder_of):
            folder_of = _numbered(root, list(folder_of), sorted(numbered))
        if other := [name for name in folder_of if not (name[0] == "n" and name[1:].isdecimal())]:
            raise ValueError(f"The folder {root / other[0]} is called like no WordNet ID, such as n01440764.")
        names = sorted(folder_of)
        items = [(path, target) for target, name in enumerate(names) for path in images_in(root, folder_of[name])]
        self._set_files(root, items, names, size)

    def image_identity(self, index: int) -> tuple[str, str, str]:
        """Return the folder of the set and the path in it: ImageNet's parts have files of the same names."""
        return "ImageNet", self.root.name, self.paths[index]


def _numbered(root: Path, folders: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Return WordNet ID -> folder, for folders that are numbers."""
    if other := [name for name in folders if not name.isdecimal()]:
        raise ValueError(f"The folder {root / other[0]} is no number, as the others in {root} are.")
    if max(map(int, folders)) >= len(classes):
        from timm.data import ImageNetInfo

        known = ImageNetInfo().label_names()
        if unknown := [name for name in classes if name not in known]:
            raise ValueError(
                f"The folder {max(folders, key=int)} of {root} means none of the {len(classes)} classes, nor, since "
                f"{unknown[0]} is among these, one of ImageNet's 1,000."
            )
        classes = known
    found = {int(name): name for name in folders if int(name) < len(classes)}
    if len(found) < len(folders):
        raise ValueError(f"{root} should have one folder per class, called 0 to {len(classes) - 1}.")
    return {classes[number]: name for number, name in found.items()}


@takes(ClassOptions)
def imagenet(
    dataset_root: str | Path,
    n_experiences: int | Sequence[int] = 1,
    seed: int = 0,
    *,
    ood_sets: str | Sequence[str] = ("v2", "a", "r", "sketch"),
    ood_root: str | Path | None = None,
    label_percent: float = 100,
    size: Size = 224,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """ImageNet, or some of its classes, with ImageNet-V2, -A, -R and -Sketch as OOD streams.

    The streams are ``train``, ``test`` (the published validation part, as usual), ``validation`` if asked for (of the
    training images), one ``ood_<set>`` per set, which has the images of the classes that both have, and one
    ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        dataset_root: holds ``train/<WordNet ID>/*.JPEG`` and ``val/<WordNet ID>/*.JPEG``; any part of the classes.
        n_experiences: it must divide the number of classes (or a list of how many classes each has; see also
            ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        ood_sets: which of "v2" (matched frequency), "a", "r" and "sketch"; () for none.
        ood_root: holds the folders of their archives, ``imagenetv2-matched-frequency-format-val/``, ``imagenet-a/``,
            ``imagenet-r/`` and ``sketch/``; None for ``dataset_root``.
        label_percent: share of the training images of each class to train on, one image at least.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        options: see ``ClassOptions``.
    """
    root = Path(dataset_root).expanduser()
    others = root if ood_root is None else Path(ood_root).expanduser()
    train, test = (ImageNet(root / part, size) for part in ("train", "val"))
    if differ := sorted(set(train.classes) ^ set(test.classes)):
        raise ValueError(
            f"train/ and val/ in {root} must have the same classes, but {len(differ)} are in one of them only, the "
            f"first is {differ[0]}."
        )
    names = check_choices("OOD set", ood_sets, list(_SETS)) if ood_sets else ()
    ood = {}
    for name in names:
        folder, page = others / _SETS[name][0], _SETS[name][1]
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is missing: get it from {page}, or leave {name} out of ood_sets.")
        ood[name] = ImageNet(folder, size, train.classes)
    settings = {"ood_sets": list(names), "size": size}
    return class_benchmark(
        "imagenet",
        train,
        test,
        settings,
        ood,
        n_experiences=n_experiences,
        seed=seed,
        label_percent=label_percent,
        **options,
    )
