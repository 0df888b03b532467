"""Redraw ftp_cl/benchmarks/data/emoji_domains.zip from the npm packages of the seven emoji sets.

Run by hand, never in tests (five minutes on one core); it needs npm and ``pip install resvg-py==0.5.0``::

    python tools/build_emoji_domains.py --output emoji_domains.zip
    python tools/build_emoji_domains.py --packages DIR/node_modules    # packages that are already installed

Nothing in the archive is chosen by hand but ``CLASSES``, which names the Unicode subgroups that make up each class.
An emoji belongs to the archive if every one of the seven sets draws it. Within a class the emoji are shuffled by
``numpy.random.RandomState(0)``, which runs on from class to class in the order of ``CLASSES``; the first 45 are kept,
and the first 60 % of these (rounded) are the training identities of every style. With the package versions below,
resvg-py 0.5.0 and Pillow 13.0 the archive comes out byte for byte as it is shipped, which the script checks at the end.

Known flaws, which come from the sets themselves: emojione and noto-v1 have one drawing, of the game, for both the
insect ``cricket`` (test, bug_reptile) and ``cricket_bat_and_ball`` (training, sport), and the high-contrast Fluent set
has one for both ``cd`` (training) and ``dvd`` (test).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

SHIPPED = Path(__file__).parent.parent / "ftp_cl" / "benchmarks" / "data" / "emoji_domains.zip"
SIZE = 64
LARGEST_CLASS = 45
TRAINING_SHARE = 0.6
# Monochrome icons leave their colour to the page.
INK = "#202020"

GROUPING = "emoji-datasource"
VERSIONS = {
    "@iconify-json/noto": "1.2.9",
    "@iconify-json/twemoji": "1.2.5",
    "@iconify-json/emojione": "1.2.3",
    "@iconify-json/noto-v1": "1.2.5",
    "@iconify-json/fluent-emoji-flat": "1.2.6",
    "@iconify-json/fluent-emoji": "1.2.7",
    "@iconify-json/fluent-emoji-high-contrast": "1.2.6",
    GROUPING: "16.0.0",
}
STYLES = {
    "noto": "@iconify-json/noto",
    "twemoji": "@iconify-json/twemoji",
    "emojione": "@iconify-json/emojione",
    "blob": "@iconify-json/noto-v1",
    "fluent_flat": "@iconify-json/fluent-emoji-flat",
    "fluent_3d": "@iconify-json/fluent-emoji",
    "line_art": "@iconify-json/fluent-emoji-high-contrast",
}
# Class -> Unicode subgroups. The order matters: one random generator runs through the classes from first to last.
CLASSES = {
    "mammal": ("animal-mammal",),
    "bird": ("animal-bird",),
    "bug_reptile": ("animal-bug", "animal-reptile", "animal-amphibian"),
    "plant": ("plant-flower", "plant-other"),
    "fruit_vegetable": ("food-fruit", "food-vegetable"),
    "dish": ("food-prepared", "food-asian", "food-sweet"),
    "drink": ("drink", "dishware"),
    "face": (
        "face-smiling",
        "face-affection",
        "face-tongue",
        "face-hand",
        "face-neutral-skeptical",
        "face-sleepy",
        "face-unwell",
        "face-hat",
        "face-glasses",
        "face-concerned",
        "face-negative",
    ),
    "hand": (
        "hand-fingers-open",
        "hand-fingers-partial",
        "hand-single-finger",
        "hand-fingers-closed",
        "hands",
        "hand-prop",
    ),
    "person": (
        "person",
        "person-gesture",
        "person-role",
        "person-fantasy",
        "person-activity",
        "person-sport",
        "person-resting",
    ),
    "heart": ("heart",),
    "clothing": ("clothing",),
    "vehicle": ("transport-ground",),
    "boat_aircraft": ("transport-water", "transport-air"),
    "building": ("place-building", "place-religious"),
    "sky_weather": ("sky & weather",),
    "clock": ("time",),
    "electronics": ("phone", "computer", "light & video"),
    "paper": ("book-paper", "mail", "office"),
    "sport": ("sport",),
}


@dataclass(frozen=True)
class Identity:
    """One emoji of the archive: its class, split and the names under which the sets may know it."""

    class_name: str
    name: str
    codepoints: str
    split: str
    icon_names: tuple[str, ...]


@dataclass(frozen=True)
class IconSet:
    """One Iconify set: ``icons.json``, and ``chars.json`` (code points -> icon name; empty for three of the sets)."""

    data: dict
    names: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> IconSet:
        """Read the set from its package folder."""
        return cls(json.loads((folder / "icons.json").read_text()), json.loads((folder / "chars.json").read_text()))

    def find(self, names: tuple[str, ...]) -> dict | None:
        """Return the icon that goes by one of ``names``, or None; a mirror image of another emoji is not a drawing."""
        for name in names:
            alias = self.data.get("aliases", {}).get(name, {"parent": name})
            if alias["parent"] in self.data["icons"] and "hFlip" not in alias:
                return self.data["icons"][alias["parent"]]
        return None

    def svg(self, names: tuple[str, ...]) -> str:
        """Return the icon that goes by one of ``names`` as an SVG document of ``SIZE`` pixels."""
        icon = self.find(names)
        if icon is None:
            raise ValueError(f"the set {self.data['prefix']} has no icon of the names {', '.join(names)}")
        left, top, width, height = (
            icon.get(key, self.data.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{SIZE}" height="{SIZE}">'
            f"{icon['body'].replace('currentColor', INK)}</svg>"
        )


def install_packages(folder: Path) -> Path:
    """Install the pinned packages below ``folder`` and return its node_modules."""
    packages = [f"{name}@{version}" for name, version in VERSIONS.items()]
    subprocess.run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", *packages], check=True)
    return folder / "node_modules"


def choose_identities(emoji: list[dict], sets: list[IconSet]) -> list[Identity]:
    """Return the emoji that all ``sets`` draw, split into training and test identities; sorted by class and name."""
    generator = np.random.RandomState(0)
    identities = []
    for class_name, subgroups in CLASSES.items():
        members = sorted((e for e in emoji if e["subcategory"] in subgroups), key=lambda e: e["sort_order"])
        candidates = []
        for member in members:
            # The sets write code points without the variation selector that asks for a coloured drawing.
            codepoints = "-".join(c for c in member["unified"].lower().split("-") if c != "fe0f")
            names = tuple(s.names[codepoints] for s in sets if codepoints in s.names)
            if all(s.find(names) for s in sets):
                candidates.append((member["short_name"], codepoints, names))
        kept = [candidates[i] for i in generator.permutation(len(candidates))[:LARGEST_CLASS]]
        for rank, (name, codepoints, names) in enumerate(kept):
            split = "train" if rank < round(TRAINING_SHARE * len(kept)) else "test"
            identities.append(Identity(class_name, name, codepoints, split, names))
    return sorted(identities, key=lambda identity: (identity.class_name, identity.name))


def draw(svg: str) -> bytes:
    """Draw ``svg`` on a transparent ground and return it as a lossless WebP file."""
    # The drawings hold no text; without the system's fonts they cannot depend on the machine either.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    webp = io.BytesIO()
    # What is wholly transparent loses its colour, which no ground shows.
    Image.open(io.BytesIO(bytes(png))).convert("RGBA").save(webp, "WEBP", lossless=True, quality=100, method=6)
    return webp.getvalue()


def on_white(file: bytes) -> np.ndarray:
    """Return the pixels [height, width, 3] of an image on white."""
    image = Image.open(io.BytesIO(file)).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return np.asarray(ground.convert("RGB"), float)


def build(packages: Path, output: Path) -> None:
    """Write the archive: every identity in every style, and ``index.csv``."""
    sets = {style: IconSet.read(packages / package) for style, package in STYLES.items()}
    emoji = json.loads((packages / GROUPING / "emoji.json").read_text())
    identities = choose_identities(emoji, list(sets.values()))
    index = io.StringIO()
    writer = csv.writer(index, lineterminator="\n")
    writer.writerow(["path", "domain", "class", "name", "codepoints", "split"])
    with zipfile.ZipFile(output, "w") as archive:
        for style, icons in sets.items():
            for one in identities:
                path = f"{style}/{one.split}/{one.class_name}/{one.name}.webp"
                # A fixed date, so that the same drawings give the same archive. WebP is compressed already.
                archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), draw(icons.svg(one.icon_names)))
                writer.writerow([path, style, one.class_name, one.name, one.codepoints, one.split])
        archive.writestr(zipfile.ZipInfo("index.csv", (2020, 1, 1, 0, 0, 0)), index.getvalue())


def compare(built: Path, shipped: Path) -> str:
    """Return in words how far the pixels and the index of two archives are apart."""
    with zipfile.ZipFile(built) as new, zipfile.ZipFile(shipped) as old:
        same_index = new.read("index.csv") == old.read("index.csv")
        common = sorted(set(new.namelist()) & set(old.namelist()) - {"index.csv"})
        differences = []
        for path in common:
            a, b = (on_white(z.read(path)) for z in (new, old))
            differences.append(np.abs(a - b).mean())
    return (
        f"index {'equal' if same_index else 'DIFFERENT'}; {len(common)} common images on white, mean absolute "
        f"difference {np.mean(differences):.6f} of 255, largest of one image {np.max(differences):.6f}; "
        f"archives {'equal' if built.read_bytes() == shipped.read_bytes() else 'not equal'} byte for byte"
    )


def main() -> None:
    """Build the archive and compare it with the shipped one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("emoji_domains.zip"), help="where to write the archive")
    parser.add_argument("--packages", type=Path, help="node_modules that holds the packages (default: install them)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(arguments.packages or install_packages(Path(folder)), arguments.output)
    print(compare(arguments.output, SHIPPED))


if __name__ == "__main__":
    main()
