"""EmojiText: the emoji of EmojiDomains in words, a text dataset for domain shift that ships with the package."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib import resources

from ftp_cl.benchmarks._checks import check_choice, check_choices
from ftp_cl.benchmarks.emoji_domains import CLASSES
from ftp_cl.benchmarks.tokens import MINILM, TokenDataset

WORDINGS = ("name", "keywords", "nl", "de", "fr", "es", "it")
"""Unicode CLDR's English short name, its English keywords, and its short name in five other languages."""


class EmojiText(TokenDataset):
    """What Unicode CLDR calls the 612 emoji of ``EmojiDomains``: the same 20 classes, the same training and test part.

    A test text therefore names an emoji that no training text named, and two wordings differ in nothing but the words.
    An item is ``(token ids, target)``, see ``TokenDataset``. ``tools/build_emoji_text.py`` in the repository writes the
    table; its licence is Unicode-3.0, see ``data/NOTICE``.

    Args:
        domain: one of ``WORDINGS`` or several of them, which are appended in the order given.
        split: "train" or "test".
        tokenizer: of which model: "minilm", a folder, or a name on the Hugging Face hub.
        max_length: longer texts are cut there, in tokens.

    Attributes:
        classes: the 20 class names; a target is a position in this list.
        targets: class index per item.
        identities: name of the emoji per item, the same in every wording.
        domains: wording per item.

    Raises:
        ValueError: for a wording or split that does not exist; it names the nearest one that does.
    """

    def __init__(self, domain: str | Sequence[str], split: str, tokenizer: str = MINILM, max_length: int = 128) -> None:
        self.domain = check_choices("domain", domain, WORDINGS)
        check_choice("split", split, ("train", "test"))
        self.split = split
        rows = [row for row in emoji_texts() if row["split"] == split]
        entries = [(name, row) for name in self.domain for row in rows]
        self.classes = list(CLASSES)
        self.domains = [name for name, _ in entries]
        self.identities = [row["emoji"] for _, row in entries]
        self.targets = [CLASSES.index(row["class"]) for _, row in entries]
        self._set_texts([row[name] for name, row in entries], tokenizer, max_length)

    def image_identity(self, index: int) -> tuple[str, str]:
        """Return the name of the emoji, the same in every wording."""
        return "emoji", self.identities[index]


@cache
def emoji_texts() -> list[dict[str, str]]:
    """Return the 612 emoji as they are in the table: "emoji", "class", "split", and each of ``WORDINGS``."""
    path = resources.files("ftp_cl.benchmarks").joinpath("data/emoji_text.csv")
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
