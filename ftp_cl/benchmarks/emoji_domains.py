"""EmojiDomains: 612 emoji in seven art styles, an image dataset for domain shift that ships with the package."""

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from typing import Any

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

_STORED_SIZE = 64


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
        check_choice("split", split, ("train", "test"))
        check_size(size, 8, 512)
        self.split = split
        self.size = size
        self.transform = transform
        self.target_transform = target_transform

        self.classes = list(CLASSES)
        entries = [
            (name, target, identity, drawing)
            for name in self.domain
            for target, found in enumerate(drawings(name, split).values())
            for identity, drawing in found.items()
        ]
        self.domains = [name for name, *_ in entries]
        self.targets = [target for _, target, *_ in entries]
        self.identities = [identity for *_, identity, _ in entries]
        self.data = np.stack([_on_white(drawing, size) for *_, drawing in entries])

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


@cache
def drawings(domain: str, split: str) -> dict[str, dict[str, Image.Image]]:
    """Return the drawings of a style and split: class -> identity -> RGBA image, 64 x 64 pixels; not to be changed.

    Both classes and identities are sorted.
    """
    found: dict[str, dict[str, Image.Image]] = {name: {} for name in CLASSES}
    # Through importlib.resources, because an installed package may itself lie in an archive.
    path = resources.files("ftp_cl.benchmarks").joinpath("data/emoji_domains.zip")
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for row in csv.DictReader(io.StringIO(archive.read("index.csv").decode())):
            if (row["domain"], row["split"]) == (domain, split):
                image = Image.open(io.BytesIO(archive.read(row["path"]))).convert("RGBA")
                found[row["class"]][row["name"]] = image
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
