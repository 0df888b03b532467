"""EmojiScenes: seeded scenes of overlapping emoji with masks, made from the drawings that ship with the package."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.random import Generator
from PIL import Image

from ftp_cl.benchmarks._checks import check_choice, check_choices, check_size, generator_of
from ftp_cl.benchmarks.dense.masks import BACKGROUND, MaskDataset
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, drawings

SCENE_CLASSES = ("background", *CLASSES)
"""The background and the twenty classes of EmojiDomains; a value of a mask is a position in this tuple."""

SPLITS: Mapping[str, int] = {"train": 400, "validation": 100, "test": 200}
"""Split -> scenes of each style."""

_EMOJI = (3, 6)
_SIDES = (24, 64)
_SIDE_OF_SCENE = 128
_VALIDATION_SHARE = 0.2

Drawings = Mapping[str, Mapping[str, Image.Image]]


class EmojiScenes(MaskDataset):
    """Scenes of 3 to 6 emoji that may overlap, on grounds of four kinds: 20 classes and background.

    All styles have the same scenes: scene number i of a split shows the same emoji at the same places on the same
    ground in each, and only the drawing differs. Emoji of the test split are in no training or validation scene, and
    those of validation in no training scene. An emoji is drawn by choosing a class first and one of its emoji then.

    **A pixel belongs to the topmost emoji whose alpha there is at least 128 of 255 after resizing**; holes in an emoji
    are what lies below, in line art as in the other styles.

    Args:
        domain: one of ``DOMAINS`` or several of them, which are appended in the order given.
        split: "train", "validation" or "test".
        scenes: how many of each style; None for 400, 100 and 200. The first are the same for any number.
        size: side of a scene in pixels, 32 to 512. Emoji have 24 to 64 pixels in a scene of 128, else in proportion.
        seed: of the scenes. What is compared has the same.

    Raises:
        ValueError: for a domain, split, number or size that does not exist.
    """

    def __init__(
        self,
        domain: str | Sequence[str],
        split: str,
        scenes: int | None = None,
        size: int = _SIDE_OF_SCENE,
        seed: int = 0,
    ) -> None:
        self.domain = check_choices("domain", domain, DOMAINS)
        check_choice("split", split, tuple(SPLITS))
        check_size(size, 32, 512)
        self.split, self.size, self.seed = split, size, seed
        self.scenes = SPLITS[split] if scenes is None else scenes
        if self.scenes < 1:
            raise ValueError(f"scenes={scenes} must be at least 1.")
        self.classes = list(SCENE_CLASSES)
        parts = [
            self._scene(emoji, number) for emoji in map(self._drawings, self.domain) for number in range(self.scenes)
        ]
        self.data = np.stack([image for image, _ in parts])
        self.masks = np.stack([mask for _, mask in parts])

    def image_identity(self, index: int) -> tuple[str, str, int, int]:
        """Return what a scene has in common with itself in other styles and sizes."""
        return "emoji scene", self.split, self.seed, index % self.scenes

    def _drawings(self, domain: str) -> Drawings:
        """Return those of each class that this split shows; the same emoji in every style."""
        if self.split == "test":
            return drawings(domain, "test")
        shown = {}
        for number, (label, emoji) in enumerate(drawings(domain, "train").items()):
            order = generator_of(self.seed, number).permutation(list(emoji))
            held_out = max(1, round(_VALIDATION_SHARE * len(order)))
            names = order[:held_out] if self.split == "validation" else order[held_out:]
            shown[label] = {str(name): emoji[name] for name in sorted(names)}
        return shown

    def _scene(self, emoji: Drawings, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw one scene: what is drawn from the generator does not depend on the style."""
        generator = generator_of(self.seed, len(CLASSES) + list(SPLITS).index(self.split), number)
        scene = Image.fromarray(_ground(generator, self.size)).convert("RGBA")
        mask = np.full((self.size, self.size), BACKGROUND, np.uint8)
        for _ in range(generator.integers(_EMOJI[0], _EMOJI[1], endpoint=True)):
            label = int(generator.integers(len(CLASSES)))
            choices = list(emoji[CLASSES[label]].values())
            drawing = choices[int(generator.integers(len(choices)))]
            side = max(4, round(int(generator.integers(*_SIDES, endpoint=True)) * self.size / _SIDE_OF_SCENE))
            left, top = (int(generator.integers(self.size - side, endpoint=True)) for _ in range(2))
            drawing = drawing.resize((side, side), Image.Resampling.LANCZOS)
            scene.alpha_composite(drawing, (left, top))
            covered = np.asarray(drawing.getchannel("A")) >= 128
            mask[top : top + side, left : left + side][covered] = label + 1
        return np.asarray(scene.convert("RGB")), mask

    def __repr__(self) -> str:
        return f"EmojiScenes({', '.join(self.domain)}; {self.split}, {len(self)} scenes of {self.size} x {self.size})"


# ---- grounds: uint8 [size, size, 3], light enough for black lines to be seen ----------------------------------------


def _ground(generator: Generator, size: int) -> np.ndarray:
    colours = generator.uniform(120, 255, (2, 3))
    share = _GROUNDS[int(generator.integers(len(_GROUNDS)))](generator, size)[..., None]
    return np.round(share * colours[0] + (1 - share) * colours[1]).astype(np.uint8)


def _plain(generator: Generator, size: int) -> np.ndarray:
    return np.zeros((size, size))


def _gradient(generator: Generator, size: int) -> np.ndarray:
    angle = generator.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size] / (size - 1) - 0.5
    return (rows * np.sin(angle) + columns * np.cos(angle)) / np.sqrt(2) + 0.5


def _checks(generator: Generator, size: int) -> np.ndarray:
    side = size // int(generator.integers(4, 16))
    rows, columns = np.mgrid[:size, :size] // side
    return ((rows + columns) % 2).astype(float)


def _clouds(generator: Generator, size: int) -> np.ndarray:
    noise = Image.fromarray(generator.uniform(0, 1, (8, 8)).astype(np.float32))
    return np.clip(np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC), float), 0, 1)


_GROUNDS: tuple[Callable[[Generator, int], np.ndarray], ...] = (_plain, _gradient, _checks, _clouds)
