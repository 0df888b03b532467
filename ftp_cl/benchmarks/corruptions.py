"""ImageNet-C's corruptions as OOD streams of any benchmark of images."""

import contextlib
import copy
import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.scenarios import CLScenario, EagerCLStream
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from ftp_cl.benchmarks._checks import UNREADABLE, check_choice, check_choices
from ftp_cl.benchmarks._dataset import DerivedDataset, LabelledDataset
from ftp_cl.benchmarks._sources import with_raw
from ftp_cl.benchmarks.cifar_corruptions import FORMULAS, corrupt_small
from ftp_cl.benchmarks.ood import add_streams, stream_of
from ftp_cl.benchmarks.scenario import DescribedScenario, StreamKind, experience_like, stream_from

CORRUPTIONS = tuple(FORMULAS)
"""The fifteen of ImageNet-C, in the order of its paper: noise, blur, weather, digital."""

SEVERITIES = (1, 2, 3, 4, 5)

CONSTANTS = ("auto", "imagenet", "cifar")
"""Which constants the severities stand for."""

_SMALLEST_SIDE = 32
_SMALLEST_SIDE_OF_IMAGENET = 64
# These two draw from generators of their own, which only their argument seeds.
_SEEDED_BY_ARGUMENT = ("impulse_noise", "glass_blur")


def with_corruptions(
    benchmark: CLScenario,
    names: str | Sequence[str] = "all",
    severities: int | Sequence[int] = SEVERITIES,
    *,
    stream: str = "test",
    seed: int = 0,
    constants: str = "auto",
    cache: str | Path | None = None,
) -> DescribedScenario:
    """Add a stream ``ood_<corruption>_<severity>`` to a benchmark for each corruption and severity.

    Each is a copy of the test stream (same items, experiences, task labels and transforms) whose raw images are
    corrupted before any transform that the benchmark applies. An image is corrupted alike in every run, whatever its
    position, the class order and the number of workers: its random numbers follow from its pixels, the corruption,
    the severity and ``seed``.

    The corruptions are those of ImageNet-C through imagecorruptions-imaug, whose constants are made for 224 pixels.
    Images whose shorter side has fewer than 64 get the constants of CIFAR-10-C instead, see ``constants``. Images of 64
    pixels (Tiny ImageNet, EmojiDomains) get those of ImageNet-C, which are **stronger than those of Tiny-ImageNet-C**.
    Noise is drawn anew, so for comparison with published numbers on CIFAR use the published files
    (``split_cifar10(corruption_source="published")``).

    Args:
        benchmark: any of Avalanche whose images are PIL images, uint8 arrays [H, W, 3] or float tensors [C, H, W] in
            [0, 1] before its transforms, with sides of at least 32 pixels. Grey images stay
            grey. It is not changed.
        names: of ``CORRUPTIONS``, one or several; "all" for all; () for none.
        severities: 1 (weak) to 5, one or several.
        stream: which stream to corrupt.
        seed: draws the noise; the same in all runs that are compared.
        constants: ``"imagenet"``; ``"cifar"``, made for 32 pixels; or ``"auto"``, "cifar" below 64 pixels.
        cache: a directory for the corrupted images, one PNG per image, corruption and severity; made if it does not
            exist. Files appear whole or not at all, so that several runs may share it. None keeps nothing.

    Returns:
        The benchmark's streams and the new ones.

    Raises:
        ValueError: for an unknown corruption or severity, or (when it is read) an image that cannot be corrupted.
        ImportError: if the extra ``corruptions`` is not installed.

    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019, arXiv 1903.12261.
    """
    chosen = check_corruptions(names)
    check_choice("constants", constants, CONSTANTS)
    levels = check_severities(severities)
    if chosen:
        _library()  # says at once what is missing
    source = stream_of(benchmark, stream)
    kept = None if cache is None else str(Path(cache).expanduser())
    drawn = {"seed": seed, "constants": constants}
    streams, recorded = [], {}
    for name, severity in product(chosen, levels):
        streams.append(_corrupted_stream(source, name, severity, cache=kept, **drawn))
        recorded[streams[-1].name] = {"corrupted": stream, "corruption": name, "severity": severity, **drawn}
    return add_streams(benchmark, streams, recorded)


def corrupt(image: Image.Image, name: str, severity: int, seed: int = 0, constants: str = "auto") -> Image.Image:
    """Return the corrupted image, in RGB; equal pixels, corruption, severity and seed give an equal result.

    The state of NumPy's global generator, from which the library draws, is put back.

    Args:
        image: both sides at least 32 pixels.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: 0 or more.
        constants: see ``with_corruptions``.

    Raises:
        ValueError: for an unknown corruption, severity or set of constants, or an image that is too small.
        ImportError: if the extra ``corruptions`` is not installed.
    """
    check_choice("corruption", name, CORRUPTIONS)
    check_severities(severity)
    check_choice("constants", constants, CONSTANTS)
    if min(image.size) < _SMALLEST_SIDE:
        raise ValueError(
            f"An image of {image.width} x {image.height} pixels is too small to be corrupted: "
            f"both sides must have {_SMALLEST_SIDE} or more."
        )
    image = image.convert("RGB")
    digest = hashlib.blake2b(f"{name} {severity} {seed} {image.size}".encode() + image.tobytes(), digest_size=16)
    number = int.from_bytes(digest.digest(), "little")
    small = constants == "cifar" or (constants == "auto" and min(image.size) < _SMALLEST_SIDE_OF_IMAGENET)
    before = np.random.get_state()
    np.random.seed(np.random.SeedSequence(number).generate_state(8))
    try:
        if small:
            return corrupt_small(image, name, severity, np.random.default_rng(number), _library().corruptions)
        options = {"seed": number % 2**32} if name in _SEEDED_BY_ARGUMENT else {}
        return Image.fromarray(_library().corrupt(np.array(image), severity, name, **options))
    finally:
        np.random.set_state(before)


def check_severities(severities: int | Sequence[int]) -> tuple[int, ...]:
    """Return ``severities`` (one or several) as a tuple; raise ValueError for one outside 1 to 5, or a repeated one."""
    levels = (severities,) if isinstance(severities, int) else tuple(severities)
    if wrong := [level for level in levels if level not in SEVERITIES]:
        raise ValueError(f"severity {wrong[0]!r} does not exist: use 1 (weak) to 5.")
    if not levels or len(set(levels)) < len(levels):
        raise ValueError(f"severities={list(levels)} must name at least one severity, and each once.")
    return levels


def check_corruptions(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return ``names`` (one, several or "all") as a tuple; raise ValueError for one that is unknown or repeated."""
    if isinstance(names, str) and names == "all":
        return CORRUPTIONS
    return check_choices("corruption", names, CORRUPTIONS) if names else ()


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        return importlib.import_module("imagecorruptions")
    except ImportError as error:
        raise ImportError(
            "Corruptions need the package imagecorruptions-imaug: pip install 'ftp-cl[corruptions]'."
        ) from error


# ---- datasets and streams --------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False)
class CorruptedDataset(DerivedDataset):
    """A dataset with every image corrupted; each is computed when it is read, or read from the cache.

    Args:
        source: its items are ``(image, class index, ...)`` with an image as ``with_corruptions`` describes.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: draws the noise.
        constants: see ``with_corruptions``.
        cache: see ``with_corruptions``.
    """

    source: LabelledDataset
    name: str
    severity: int
    seed: int = 0
    constants: str = "auto"
    cache: str | None = None

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self.source[index]
        image, restore = _as_image(item[0])
        return restore(self._corrupted(image)), *item[1:]  # type: ignore[return-value]

    def _corrupted(self, image: Image.Image) -> Image.Image:
        if self.cache is None:
            return corrupt(image, self.name, self.severity, self.seed, self.constants)
        key = f"{self.seed} {self.constants} {image.size}"
        digest = hashlib.blake2b(key.encode() + image.tobytes(), digest_size=16).hexdigest()
        path = Path(self.cache, f"{self.name}_{self.severity}", digest[:2], f"{digest}.png")
        with contextlib.suppress(*UNREADABLE), Image.open(path) as kept:
            return kept.convert("RGB")
        image = corrupt(image, self.name, self.severity, self.seed, self.constants)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under its name only when it is complete. A temporary file of the standard library others could not read.
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        image.save(part, "PNG")
        os.replace(part, path)
        return image


def _as_image(value: Any) -> tuple[Image.Image, Callable[[Image.Image], Any]]:
    """Return a raw input as a PIL image in RGB, and the way back to its type and number of channels."""
    if isinstance(value, Image.Image):
        mode = "L" if value.mode == "L" else "RGB"
        return value.convert("RGB"), lambda image: image.convert(mode)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        grey = Image.fromarray(value.squeeze())
        return grey.convert("RGB"), lambda image: np.array(image.convert(grey.mode)).reshape(value.shape)
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim == 3 and len(value) in (1, 3):
        if not (value.min() >= 0 and value.max() <= 1):
            raise ValueError(
                f"Tensors to be corrupted must be images in [0, 1], but the dataset gives values from {value.min():g} "
                f"to {value.max():g}: move its normalisation into the benchmark's transforms."
            )
        return to_pil_image(value.expand(3, -1, -1)), lambda image: to_tensor(image)[: len(value)].to(value.dtype)
    shape = f" of shape {list(value.shape)}" if hasattr(value, "shape") else ""
    raise ValueError(
        f"Only images can be corrupted (PIL, uint8 arrays [H, W, 3], float tensors [C, H, W]), "
        f"but the dataset gives {type(value).__name__}{shape}."
    )


def _corrupted_stream(stream: EagerCLStream, name: str, severity: int, **options: Any) -> EagerCLStream:
    made: dict[int, CorruptedDataset] = {}

    def corrupted(source: LabelledDataset) -> CorruptedDataset:
        # One per source, however many experiences are cut from it.
        return made.setdefault(id(source), CorruptedDataset(source, name, severity, **options))

    # One per dataset, too: experiences of the same images share it.
    # Their indices, transforms, targets and task labels stay.
    datasets: dict[int, Any] = {id(e.dataset): copy.copy(e.dataset) for e in stream}
    for twin in datasets.values():
        twin._flat_data = with_raw(twin._flat_data, corrupted)
    experiences = [experience_like(e, datasets[id(e.dataset)]) for e in stream]
    return stream_from(f"ood_{name}_{severity}", experiences, StreamKind("ood", name, severity))
