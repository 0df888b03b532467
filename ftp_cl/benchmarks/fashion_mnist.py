"""split_fashion_mnist: ten kinds of clothing, small enough for experiments on a laptop."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
from PIL import Image
from torchvision.datasets import FashionMNIST

from ftp_cl.benchmarks._checks import Size, check_choice, check_size, class_indices, readable
from ftp_cl.benchmarks._dataset import ArrayDataset
from ftp_cl.benchmarks.download import data_root, require_file
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

FASHION_CLASSES = tuple(FashionMNIST.classes)
"""The ten classes, from "T-shirt/top" to "Ankle boot"; a target is a position in this tuple."""

# torchvision's class says where the files are published.
_URL = FashionMNIST.mirrors[0]
_CHECKSUMS = dict(FashionMNIST.resources)
_PREFIXES = {"train": "train", "test": "t10k"}
_LARGEST_FILE = 60_000 * 28 * 28 + 16


class FashionMnist(ArrayDataset):
    """Fashion-MNIST from the files that torchvision and Avalanche use, plain or as ``.gz``.

    An item is ``(image, target)``: a PIL image in RGB (three equal channels) of ``size`` x ``size`` pixels and the
    class index.

    Args:
        root: holds ``FashionMNIST/raw/train-images-idx3-ubyte`` and so on.
        split: ``"train"`` or ``"test"``.
        size: side of the images in pixels, 28 to 512; bilinear. The default is the smallest that can be corrupted.
        download: fetch files that are missing.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: for an unknown split, a size that is out of range, or a file that cannot be read.

    Source:
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        2017, arXiv 1708.07747.
    """

    def __init__(self, root: str | Path, split: str, size: Size = 32, download: bool = False) -> None:
        check_choice("split", split, tuple(_PREFIXES))
        check_size(size, 28, 512)
        self.root, self.split, self.size = Path(root), split, size
        self.classes = list(FASHION_CLASSES)
        folder = self.root / "FashionMNIST" / "raw"
        images = _read_idx(folder, f"{_PREFIXES[split]}-images-idx3-ubyte", download)
        labels = _read_idx(folder, f"{_PREFIXES[split]}-labels-idx1-ubyte", download)
        if len(images) != len(labels):
            raise ValueError(f"The {split} files in {folder} have {len(images)} images, but {len(labels)} labels.")
        self.data = images
        self.targets = class_indices(f"{folder}, {split} labels", labels, len(self.classes))

    def image_identity(self, index: int) -> tuple[str, str, int]:
        """Return the place of an image in the published files."""
        return "Fashion-MNIST", self.split, index

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, target = super().__getitem__(index)
        image = image.convert("RGB")
        if callable(self.size):
            return self.size(image), target
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR), target


def _read_idx(folder: Path, name: str, download: bool) -> np.ndarray:
    """Return the array of a file in the idx format of MNIST: its magic number, its shape, then bytes."""
    path = folder / name
    if not path.is_file():
        path = require_file(folder, f"{name}.gz", f"{_URL}{name}.gz", _CHECKSUMS[f"{name}.gz"], download)
    with readable(path, f"get it again from {_URL}{name}.gz"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ValueError(f"it has more than {_LARGEST_FILE} bytes")
        n_dimensions = 3 if "idx3" in name else 1
        shape = np.frombuffer(content, ">i4", 1 + n_dimensions)
        if shape[0] != 0x0800 + n_dimensions:
            raise ValueError(f"its magic number is {shape[0]}")
        return np.frombuffer(content, np.uint8, offset=4 * len(shape)).reshape(shape[1:])


@takes(ClassOptions)
def split_fashion_mnist(
    n_experiences: int | Sequence[int] = 5,
    seed: int = 0,
    *,
    size: Size = 32,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """Fashion-MNIST in experiences of a few classes, with corruptions as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, and one ``ood_<corruption>_<severity>`` per
    corruption and severity.

    Args:
        n_experiences: 1, 2, 5 or 10 (or a list of how many classes each has; see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        size: side of the images in pixels, 28 to 512 (32 at least with corruptions); bilinear, three equal channels.
        dataset_root: holds ``FashionMNIST/raw/``; None for ~/.avalanche/data/fashionmnist.
        download: fetch what is missing (31 MB), with progress and checksum.
        options: see ``ClassOptions``.
    """
    root = data_root(dataset_root, "fashionmnist")
    train, test = (FashionMnist(root, part, size, download) for part in ("train", "test"))
    return class_benchmark(
        "split_fashion_mnist", train, test, {"size": size}, n_experiences=n_experiences, seed=seed, **options
    )
