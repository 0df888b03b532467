"""Write ftp_cl/benchmarks/data/emoji_text.csv from the npm package cldr-annotations-full of the Unicode Consortium.

Run by hand, never in tests (seconds); it needs npm::

    python tools/build_emoji_text.py --output emoji_text.csv
    python tools/build_emoji_text.py --packages DIR/node_modules    # a package that is already installed

A row is one of the 612 emoji of EmojiDomains, with its name, class and part there; a column is a wording: the English
short name of CLDR, its English keywords, and the short name in other languages. Nothing is chosen by hand but
``LANGUAGES``. The file comes out byte for byte as it is shipped, which the script checks at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION = "cldr-annotations-full", "48.2.0"
DATA = Path(__file__).parents[1] / "ftp_cl" / "benchmarks" / "data"
LANGUAGES = ("nl", "de", "fr", "es", "it")


def install_package(folder: Path) -> Path:
    """Install the pinned package below ``folder`` and return its node_modules."""
    command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}"]
    subprocess.run(command, check=True)
    return folder / "node_modules"


def emoji() -> list[dict[str, str]]:
    """Return the rows of one style in the index of EmojiDomains, in its order."""
    with zipfile.ZipFile(DATA / "emoji_domains.zip") as archive:
        rows = list(csv.DictReader(archive.read("index.csv").decode().splitlines()))
    return [row for row in rows if row["domain"] == rows[0]["domain"]]


def annotations(packages: Path, language: str) -> dict[str, dict[str, list[str]]]:
    """Return characters -> {"tts": [short name], "default": keywords} in a language."""
    path = packages / PACKAGE / "annotations" / language / "annotations.json"
    return json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]


def build(packages: Path, output: Path) -> None:
    """Write the table."""
    english = annotations(packages, "en")
    others = [annotations(packages, language) for language in LANGUAGES]
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["emoji", "class", "split", "name", "keywords", *LANGUAGES])
        for row in emoji():
            characters = "".join(chr(int(code, 16)) for code in row["codepoints"].split("-"))
            short, keywords = english[characters]["tts"][0], ", ".join(english[characters]["default"])
            elsewhere = [other[characters]["tts"][0] for other in others]
            writer.writerow([row["name"], row["class"], row["split"], short, keywords, *elsewhere])


def main() -> None:
    """Build the table and compare it with the shipped one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("emoji_text.csv"), help="where to write the table")
    parser.add_argument("--packages", type=Path, help="node_modules that holds the package (default: install it)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build(arguments.packages or install_package(Path(folder)), arguments.output)
    shipped = DATA / "emoji_text.csv"
    same = shipped.exists() and shipped.read_bytes() == arguments.output.read_bytes()
    print(f"{'equal to' if same else 'not equal to'} the shipped table, byte for byte")


if __name__ == "__main__":
    main()
