"""EmojiDomains: 612 emoji in seven art styles, an image dataset for domain shift that ships with the package."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ftp_cl.benchmarks._checks import Size, check_choice, check_choices, check_size, side_of
from ftp_cl.benchmarks._dataset import RebuildableDataset

DOMAINS = ("noto", "blob", "twemoji", "emojione", "fluent_flat", "fluent_3d", "line_art")
"""The seven styles; ``line_art`` (black lines on white) is the farthest from the others."""

CLASSES = (
    "bird",
    "boat_aircraft",
    "bug_reptile",
    "building",
    "clock",
    "clothing",
    "dish",
    "drink",
    "electronics",
    "face",
    "fruit_vegetable",
    "hand",
    "heart",
    "mammal",
    "paper",
    "person",
    "plant",
    "sky_weather",
    "sport",
    "vehicle",
)
"""The twenty classes, sorted; a target is a position in this tuple."""

_SPLITS = ("train", "test")
_STORED_SIZE = 64
_SIZES = (8, 512)


class _Entry(NamedTuple):
    path: str
    class_name: str
    identity: str


class EmojiDomains(RebuildableDataset):
    """612 emoji drawn in seven styles: 20 classes, and the same training and test *identities* in every style.

    A test image therefore shows an emoji that no style showed in training, and two styles differ in nothing but the
    drawing: an offline, openly licensed stand-in for DomainNet. An item is ``(image, target)``: a PIL image in RGB of
    ``size`` x ``size`` pixels on white (or what ``transform`` makes of it) and the class index.

    Each style has 368 training and 244 test images, 7 to 27 of each class in training and 5 to 18 in the test part.
    The images are stored with 64 x 64 pixels and alpha; any other size is resampled once, when the dataset is made.
    Sources and licences are in ``data/NOTICE``; ``tools/build_emoji_domains.py`` in the repository redraws the archive.

    Two known flaws come from the sources: emojione and blob draw ``cricket`` (test, bug_reptile) as the game, exactly
    as ``cricket_bat_and_ball`` (training, sport), and line_art has one drawing for ``cd`` (training) and ``dvd``
    (test).

    Args:
        domain: one of ``DOMAINS`` or several of them, which are appended in the order given.
        split: ``"train"`` or ``"test"``.
        size: side of the images in pixels, 8 to 512; Lanczos filter.
        transform: takes the PIL image.
        target_transform: takes the class index.

    Attributes:
        data: uint8 array [N, size, size, 3].
        classes: the 20 class names; a target is a position in this list.
        targets: class index per item.
        identities: name of the emoji per item, the same in every style.
        domains: style per item.

    Raises:
        ValueError: for a domain, split or size that does not exist; it names the nearest one that does.
    """

    def __init__(
        self,
        domain: str | Sequence[str],
        split: str,
        size: Size = _STORED_SIZE,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.domain = check_choices("domain", domain, DOMAINS)
        check_choice("split", split, _SPLITS)
        check_size(size, *_SIZES)
        self.split = split
        self.size = size
        self.transform = transform
        self.target_transform = target_transform

        entries = [(name, entry) for name in self.domain for entry in _index()[name, split]]
        self.classes = list(CLASSES)
        self.domains = [name for name, _ in entries]
        self.identities = [entry.identity for _, entry in entries]
        self.targets = [CLASSES.index(entry.class_name) for _, entry in entries]
        found = [drawings(name, split)[entry.class_name][entry.identity] for name, entry in entries]
        self.data = np.stack([_on_white(drawing, size) for drawing in found])

    def image_identity(self, index: int) -> tuple[str, str]:
        """Return the name of the emoji, the same in every style and size."""
        return "emoji", self.identities[index]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.data[index])
        target = self.targets[index]
        return (
            image if self.transform is None else self.transform(image),
            target if self.target_transform is None else self.target_transform(target),
        )

    def __repr__(self) -> str:
        side = side_of(self.size)
        return f"EmojiDomains({', '.join(self.domain)}; {self.split}, {len(self)} images of {side} x {side})"


@contextmanager
def _open_archive() -> Iterator[zipfile.ZipFile]:
    # Through importlib.resources, because an installed package may itself lie in an archive.
    path = resources.files("ftp_cl.benchmarks").joinpath("data/emoji_domains.zip")
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        yield archive


@lru_cache(maxsize=1)
def _index() -> dict[tuple[str, str], list[_Entry]]:
    """Return the entries of each (domain, split), sorted by class and identity as in the archive."""
    index: dict[tuple[str, str], list[_Entry]] = {(domain, split): [] for domain in DOMAINS for split in _SPLITS}
    with _open_archive() as archive:
        for row in csv.DictReader(io.StringIO(archive.read("index.csv").decode())):
            index[row["domain"], row["split"]].append(_Entry(row["path"], row["class"], row["name"]))
    return index


@lru_cache(maxsize=2 * len(DOMAINS))
def drawings(domain: str, split: str) -> dict[str, dict[str, Image.Image]]:
    """Return the drawings of a style and split: class -> identity -> RGBA image, 64 x 64 pixels; not to be changed."""
    found: dict[str, dict[str, Image.Image]] = {name: {} for name in CLASSES}
    with _open_archive() as archive:
        for entry in _index()[domain, split]:
            image = Image.open(io.BytesIO(archive.read(entry.path))).convert("RGBA")
            found[entry.class_name][entry.identity] = image
    return found


def _on_white(drawing: Image.Image, size: Size) -> np.ndarray:
    """Return a drawing as uint8 [size, size, 3]."""
    ground = Image.new("RGBA", drawing.size, "white")
    ground.alpha_composite(drawing)
    image = ground.convert("RGB")
    if callable(size):
        image = size(image)
    elif size != _STORED_SIZE:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)
