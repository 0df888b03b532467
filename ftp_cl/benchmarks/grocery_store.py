"""grocery_store: 81 kinds of fruit, vegetables and cartons, photographed in shops; product pictures as OOD stream."""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from ftp_cl.benchmarks._checks import Size, check_choice
from ftp_cl.benchmarks.download import data_root
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, read_lines
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

_REPOSITORY = "https://github.com/marcusklasson/GroceryStoreDataset"
_FILES = ("classes.csv", "train.txt", "val.txt", "test.txt", "train", "val", "test", "iconic-images-and-descriptions")
_LIST_OF = {"train": "train", "validation": "val", "test": "test"}
_COLUMNS = ("Class Name (str)", "Class ID (int)", "Iconic Image Path (str)")


class GroceryStore(ImageFiles):
    """GroceryStoreDataset with its 81 fine classes; images are decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``; the parts are those of the published lists.

    Args:
        root: a clone of the published repository: holds ``dataset/classes.csv``, ``dataset/{train,val,test}.txt``,
            whose lines are ``train/Fruit/Kiwi/Kiwi_001.jpg, 7, 3`` (fine and coarse class), and the images.
        split: ``"train"`` (2,640 photographs), ``"validation"`` (296, of 60 of the classes), ``"test"`` (2,485), or
            ``"iconic"``, one product picture per class.
        size: side of the images in pixels; None for as they are (348 x 348 and larger, iconic 198 x 198).

    Raises:
        FileNotFoundError: if ``root`` is no such clone (it says what is there instead), or images are missing.
        ValueError: for an unknown split, or a line that is wrong.

    Source:
        Klasson, Zhang, Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV
        2019, arXiv 1901.00711; MIT license.
    """

    def __init__(self, root: str | Path, split: str, size: Size | None = 224) -> None:
        check_choice("split", split, (*_LIST_OF, "iconic"))
        self.parent, self.split = Path(root), split
        folder = self.parent / "dataset"
        _check_layout(self.parent, folder)
        classes, iconic = _read_classes(folder / "classes.csv")
        if split == "iconic":
            items, source = [(path, target) for target, path in enumerate(iconic)], folder / "classes.csv"
        else:
            source = folder / f"{_LIST_OF[split]}.txt"
            items = _read_list(source, classes)
        check_files(folder, (path for path, _ in items), named_by=source)
        self._set_files(folder, items, classes, size)


def _check_layout(root: Path, folder: Path) -> None:
    missing = [name for name in _FILES if not (folder / name).exists()]
    if missing:
        where = folder if folder.is_dir() else root
        there = sorted(os.listdir(where)) if where.is_dir() else []
        more = f" and {len(there) - 8} more" if len(there) > 8 else ""
        raise FileNotFoundError(
            f"{folder / missing[0]} is missing: {root} should be a clone of {_REPOSITORY}, with {', '.join(_FILES)} in "
            f"dataset/, but in {where} there is {', '.join(there[:8]) or 'nothing'}{more}."
        )


def _read_classes(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the classes and the paths of their product pictures, in the order of the class indices."""
    rows = list(csv.DictReader(read_lines(path), restval=""))
    found: dict[int, tuple[str, str]] = {}
    for number, row in enumerate(rows, start=2):
        name, index, picture = (row.get(column) or "" for column in _COLUMNS)
        if not (name and index.isdecimal() and picture) or int(index) >= len(rows) or int(index) in found:
            raise ValueError(
                f"{path}, line {number}: {_COLUMNS} must be a name, a number from 0 to {len(rows) - 1} that no other "
                f"class has, and a path, but are {(name, index, picture)}."
            )
        found[int(index)] = name, picture.lstrip("/")
    return [found[index][0] for index in range(len(rows))], [found[index][1] for index in range(len(rows))]


def _read_list(path: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Return the (path, fine class) of each line of a list; the folder of an image is called like its class."""
    items: dict[str, int] = {}
    index_of = {name: str(index) for index, name in enumerate(classes)}
    for number, line in enumerate(read_lines(path), start=1):
        match = re.fullmatch(rf"({path.stem}/.+/([^/]+)/[^/]+), *(\d+), *\d+", line.strip())
        if match is None or index_of.get(match[2]) != match[3] or match[1] in items:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not '{path.stem}/<...>/<class>/<file>, <class index>, <coarse "
                "class>' with an image that no line before names, and a class and index of classes.csv."
            )
        items[match[1]] = int(match[3])
    return list(items.items())


@takes(ClassOptions)
def grocery_store(
    n_experiences: int | Sequence[int] = 9,
    seed: int = 0,
    *,
    size: Size = 224,
    dataset_root: str | Path | None = None,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """GroceryStoreDataset, 81 kinds of groceries in experiences, with one product picture per class as OOD stream.

    The streams are ``train``, ``test``, ``validation``, ``ood_iconic``, and one ``ood_<corruption>_<severity>`` per
    corruption and severity. Without ``validation_fraction``, validation is on the published list, which has 296
    photographs of 60 of the classes; with it, on that share of the training photographs.

    Args:
        n_experiences: 9 of 9 classes each by default; it must divide the number of classes, or is a list of how many
            classes each has (see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        dataset_root: a clone of the published repository, see ``GroceryStore``; None for
            ~/.avalanche/data/grocery_store. It is not downloaded automatically, because it has no published checksums.
        options: see ``ClassOptions``.
    """
    root = data_root(dataset_root, "grocery_store")
    train, validation, test, iconic = (GroceryStore(root, part, size) for part in (*_LIST_OF, "iconic"))
    return class_benchmark(
        "grocery_store",
        train,
        test,
        {"size": size, "validation": "val.txt" if options["validation_fraction"] is None else "drawn"},
        {"iconic": iconic},
        validation=validation,
        n_experiences=n_experiences,
        seed=seed,
        **options,
    )
