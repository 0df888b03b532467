"""split_imagenet_r: 200 classes of ImageNet as art, cartoons, toys and sketches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import yaml

from ftp_cl.benchmarks._checks import Size, check_choice, class_indices
from ftp_cl.benchmarks.download import Archive, data_root, require_folder
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, class_folders, images_in
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

_ARCHIVE = Archive(
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar", "a61312130a589d0ca1a8fca1f2bd3337", "imagenet-r"
)
_SPLITS = ("train", "test")
_TEST_SHARE = 0.2


class ImageNetR(ImageFiles):
    """ImageNet-R (Renditions), divided into a training and a test part; images are decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``. The published data has no division. Two are in use:

    - by lists: ``imagenet-r_train.yaml`` (24,000 images) and ``imagenet-r_test.yaml`` (6,000), as the rehearsal-free
      work distributes them: a mapping with ``data``, paths that end in ``<wnid>/<file>``, and ``targets``, their class
      indices. The class indices are then those of the lists.
    - drawn: 20 % of each class, one image at least, are for testing. The class indices are the positions of the sorted
      WordNet IDs.

    Args:
        root: holds ``imagenet-r/<wnid>/*.jpg``.
        split: ``"train"`` or ``"test"``.
        split_lists: the folder with the two lists; None to draw.
        split_seed: draws the division if there are no lists.
        size: side of the images in pixels; None for as they are.
        download: fetch the archive (2.0 GB) if the folder is missing.

    Attributes:
        classes: WordNet IDs (n01443537, ...).

    Raises:
        FileNotFoundError: if data is missing, also an image that a list names.
        ValueError: for an unknown split, or a list that cannot be read or contradicts itself.

    Source:
        Hendrycks et al., "The Many Faces of Robustness: A Critical Analysis of Out-of-Distribution Generalization",
        ICCV 2021, arXiv 2006.16241. Lists: Smith et al., "CODA-Prompt", CVPR 2023, arXiv 2211.13218, released code.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        split_lists: str | Path | None = None,
        split_seed: int = 0,
        size: Size | None = 224,
        download: bool = False,
    ) -> None:
        check_choice("split", split, _SPLITS)
        self.split, self.split_seed, self.parent = split, split_seed, Path(root)
        self.split_lists = None if split_lists is None else Path(split_lists).expanduser()
        folder = require_folder(self.parent, _ARCHIVE, download)
        lists = self.split_lists
        if lists is not None:
            self._set_files(folder, *_read_part(folder, split, lists), size)
            return
        from ftp_cl.benchmarks.class_incremental import draw_identities

        images = {wnid: images_in(folder, wnid) for wnid in class_folders(folder)}
        parts = draw_identities(images, validation_fraction=_TEST_SHARE, shots=None, seed=split_seed)
        part = parts[_SPLITS.index(split)]
        items = [(path, target) for target, paths in enumerate(part.values()) for path in sorted(paths)]
        self._set_files(folder, items, list(images), size)


def _read_part(folder: Path, split: str, lists: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Read both lists, so that both parts have the same classes, and return one part."""
    wnid_of: dict[int, str] = {}
    target_of: dict[str, int] = {}
    parts = {}
    list_of: dict[str, Path] = {}
    for name in _SPLITS:
        path = lists / f"imagenet-r_{name}.yaml"
        parts[name] = _read_list(path)
        for image, target in parts[name]:
            if image in list_of:
                raise ValueError(f"{path} names {image}, which {list_of[image]} has named before.")
            list_of[image] = path
            wnid = image.partition("/")[0]
            if wnid_of.setdefault(target, wnid) != wnid or target_of.setdefault(wnid, target) != target:
                raise ValueError(
                    f"{path} gives {image} the class {target}, but before class {target} was "
                    f"{wnid_of[target]} and {wnid} was class {target_of.get(wnid, target)}."
                )
        check_files(folder, (image for image, _ in parts[name]), named_by=path)
    if sorted(wnid_of) != list(range(len(wnid_of))):
        raise ValueError(f"The classes in the lists of {lists} are not 0 to {len(wnid_of) - 1}, each at least once.")
    return parts[split], [wnid_of[target] for target in range(len(wnid_of))]


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Return (path ``<wnid>/<file>``, class index) of each image of a list file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"The list {path} is missing: it comes with the code of rehearsal-free work such as CODA-Prompt "
            f"(https://github.com/GT-RIPL/CODA-Prompt, dataloaders/splits); without split_lists a division is drawn."
        )
    try:
        # The lists have 24,000 entries; libyaml, where it is there, reads them ten times faster.
        content = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        paths = ["/".join(entry.split("/")[-2:]) for entry in content["data"]]
        targets = class_indices("`targets`", content["targets"], None)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no mapping with `data` (paths) and `targets` (class indices): {reason}.") from None
    if len(paths) != len(targets):
        raise ValueError(f"{path} has {len(paths)} paths in `data`, but {len(targets)} classes in `targets`.")
    return list(zip(paths, targets, strict=True))


@takes(ClassOptions)
def split_imagenet_r(
    n_experiences: int | Sequence[int] = 10,
    seed: int = 0,
    *,
    split_lists: str | Path | None = None,
    split_seed: int = 0,
    size: Size = 224,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """ImageNet-R, 200 classes as art, cartoons and sketches, in experiences, with corruptions as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, and one ``ood_<corruption>_<severity>`` per
    corruption and severity.

    Args:
        n_experiences: 5, 10 and 20 are usual; it must divide the number of classes (or a list of how many classes each
            has; see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        split_lists: a folder with ``imagenet-r_train.yaml`` and ``imagenet-r_test.yaml``, see ``ImageNetR``; None to
            draw 20 % of each class for testing. The description records which.
        split_seed: draws the test images; apart from ``seed``, so that runs with several seeds share a test set.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        dataset_root: holds ``imagenet-r/<wnid>/*.jpg``; None for ~/.avalanche/data/imagenet-r.
        download: fetch the archive if it is missing (2.0 GB), with progress and checksum.
        options: see ``ClassOptions``.
    """
    root = data_root(dataset_root, "imagenet-r")
    train, test = (ImageNetR(root, part, split_lists, split_seed, size, download) for part in _SPLITS)
    division = f"lists in {split_lists}" if split_lists else f"20 % of each class for testing, split_seed {split_seed}"
    settings = {"size": size, "division": division}
    return class_benchmark("split_imagenet_r", train, test, settings, n_experiences=n_experiences, seed=seed, **options)
