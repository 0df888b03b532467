"""TextTable: a table of texts and labels, from CSV, Parquet or a directory that `datasets` has saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftp_cl.benchmarks._checks import check_choice
from ftp_cl.benchmarks.tokens import MINILM, TokenDataset

if TYPE_CHECKING:
    import polars as pl

PART_COLUMN = "split"
"""The column that tells the parts of a single file."""

_SUFFIXES = (".csv", ".parquet")


class TextTable(TokenDataset):
    """The texts of one part of a data set; an item is ``(token ids, target)``, see ``TokenDataset``.

    Args:
        root: see ``parts_of``.
        part: "train", "test" or "ood_<name>".
        text: the column of the texts.
        label: the column of the labels: whole numbers or names.
        tokenizer: of which model: "minilm", a folder, or a name on the Hugging Face hub.
        max_length: longer texts are cut there, in tokens.
        classes: names of the labels, a target being a position; None for those of this part, sorted.
        where: (column, value): only the rows with this value there; None for all.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: if a column is missing, a text or label is empty, or a label is not in ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        part: str,
        text: str = "text",
        label: str = "label",
        tokenizer: str = MINILM,
        max_length: int = 128,
        classes: Sequence[str] | None = None,
        where: tuple[str, str] | None = None,
    ) -> None:
        self.root, self.part, self.text, self.label, self.where = root, part, text, label, where
        texts, labels, *domains = read_columns(root, part, (text, label, *(where[:1] if where else ())))
        if where:
            kept = [row for row, domain in enumerate(domains[0]) if domain == where[1]]
            texts, labels = [texts[row] for row in kept], [labels[row] for row in kept]
        self.classes = sorted(set(labels), key=_as_number) if classes is None else list(classes)
        positions = {name: position for position, name in enumerate(self.classes)}
        if unknown := sorted(set(labels) - set(positions)):
            raise ValueError(f"{part} in {root} has the label {unknown[0]!r}, which training has not.")
        self.targets = [positions[name] for name in labels]
        self._set_texts(texts, tokenizer, max_length)


def parts_of(root: str | Path) -> list[str]:
    """Return the names of the parts that a data set has.

    Args:
        root: a directory with ``train``, ``test`` and ``ood_<name>``, each ``.csv`` or ``.parquet``; or one that
            ``datasets.DatasetDict.save_to_disk`` wrote; or one such file, with a column ``split``.

    Raises:
        FileNotFoundError: if there is nothing of that kind.
    """
    root = Path(root)
    if _is_saved(root):
        return [folder.name for folder in sorted(root.iterdir()) if folder.is_dir()]
    if root.is_dir():
        return sorted({file.stem for file in root.iterdir() if file.suffix in _SUFFIXES})
    return sorted(set(_column(_read(root), PART_COLUMN, root)))


def read_columns(root: str | Path, part: str, names: Sequence[str]) -> list[list[str]]:
    """Return columns of a part as text; of numbers that stand for names (`ClassLabel` of `datasets`) the names.

    Raises:
        FileNotFoundError: if there is no such part.
        ValueError: if there is no such column, a row has nothing there, or a part has two files.
    """
    root = Path(root)
    if _is_saved(root):
        return _saved_columns(root / part, names)
    if root.is_dir():
        files = [root / f"{part}{suffix}" for suffix in _SUFFIXES]
        there = [file for file in files if file.exists()]
        if len(there) > 1:
            raise ValueError(f"{root} has {there[0].name} and {there[1].name}: keep the one that is meant.")
        path = (there or files)[0]
        frame = _read(path)
    else:
        path, frame = root, _read(root)
        frame = frame.filter([name == part for name in _column(frame, PART_COLUMN, path)])
        if frame.is_empty():
            raise FileNotFoundError(f"There is no part {part!r} in {root}: no row has it in the column 'split'.")
    return [_column(frame, name, path) for name in names]


def _saved_columns(folder: Path, names: Sequence[str]) -> list[list[str]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no part {folder.name!r} in {folder.parent}.")
    import datasets

    table = datasets.load_from_disk(str(folder))
    frame = table.with_format("polars")[:]
    columns = [_column(frame, name, folder) for name in names]
    for position, name in enumerate(names):
        if isinstance(kind := table.features[name], datasets.ClassLabel):
            if "-1" in columns[position]:
                raise ValueError(f"{folder} has rows without a label: their {name!r} is -1.")
            columns[position] = [kind.int2str(int(value)) for value in columns[position]]
    return columns


def _is_saved(root: Path) -> bool:
    return (root / "dataset_dict.json").exists()


def _read(path: Path) -> "pl.DataFrame":
    import polars as pl  # takes half a second, which users of images need not wait

    if not path.exists():
        raise FileNotFoundError(f"There is no file or directory {path}.")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no table that is read here: use .csv or .parquet, or a directory of them.")
    try:
        return pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def _column(frame: "pl.DataFrame", name: str, path: Path) -> list[str]:
    check_choice(f"column of {path}", name, frame.columns)
    values = frame[name].to_list()
    for row, value in enumerate(values):
        if value is None or value != value or not str(value).strip():  # NaN is not itself
            raise ValueError(f"Row {row} of {path} has nothing in the column {name!r}.")
    return [str(value) for value in values]


def _as_number(name: str) -> tuple[bool, int, str]:
    """Numbers first, in their order; "1" and "01" are two names."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name
