"""split_cifar10 and split_cifar100, with the published CIFAR-10-C and CIFAR-100-C as OOD streams."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms import Compose, Resize

from ftp_cl.benchmarks._checks import Size, check_choice, check_size, class_indices, readable
from ftp_cl.benchmarks._dataset import ArrayDataset
from ftp_cl.benchmarks.download import Archive, data_root, require_folder
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, takes

_SIDE = 32


# torchvision's classes say where the data are published and which files they have.
_PUBLISHED: dict[str, type[CIFAR10]] = {"cifar10": CIFAR10, "cifar100": CIFAR100}
_LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}
_ZENODO = "https://zenodo.org/records"
_CORRUPTED = {
    "cifar10": Archive(f"{_ZENODO}/2535967/files/CIFAR-10-C.tar", "56bf5dcef84df0e2308c6dcbcbbd8499", "CIFAR-10-C"),
    "cifar100": Archive(f"{_ZENODO}/3555552/files/CIFAR-100-C.tar", "11f0ed0f1191edbf9fa23466ae6021d3", "CIFAR-100-C"),
}


class Cifar(ArrayDataset):
    """CIFAR-10 or CIFAR-100 from the files that torchvision and Avalanche use.

    An item is ``(image, target)``: a PIL image in RGB of 32 x 32 pixels and the class index.

    Args:
        root: holds ``cifar-10-batches-py/`` or ``cifar-100-python/``.
        variant: ``"cifar10"`` or ``"cifar100"``.
        split: ``"train"`` or ``"test"``.
        download: fetch the archive if the folder is missing.

    Attributes:
        data: uint8 [N, 32, 32, 3].
        classes: the class names; of CIFAR-100 the fine ones.
        targets: class index per item.

    Raises:
        FileNotFoundError: if the data is missing and cannot be downloaded.
        ValueError: for an unknown variant or split, or a file that cannot be read.

    Source:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    def __init__(self, root: str | Path, variant: str, split: str, download: bool = False) -> None:
        check_choice("variant", variant, list(_PUBLISHED))
        check_choice("split", split, ("train", "test"))
        self.root, self.variant, self.split = Path(root), variant, split
        published = _PUBLISHED[variant]
        archive = Archive(published.url, published.tgz_md5, published.base_folder)
        folder = require_folder(self.root, archive, download)
        batches = [_read_batch(folder / name, _LABELS[variant]) for name, _ in getattr(published, f"{split}_list")]
        self.data = np.concatenate([pixels for pixels, _ in batches])
        self.classes = [str(name) for name in _unpickle(folder / published.meta["filename"], published.meta["key"])]
        labels = [label for _, labels in batches for label in labels]
        self.targets = class_indices(f"{folder}, {split} files", labels, len(self.classes))

    def image_identity(self, index: int) -> tuple[str, str, int]:
        """Return the place of an image in the published files."""
        return self.variant, self.split, index


class CorruptedCifar(ArrayDataset):
    """One corruption and severity of the published CIFAR-10-C or CIFAR-100-C: the test images, in their order.

    Args:
        root: holds ``CIFAR-10-C/`` or ``CIFAR-100-C/`` with ``<corruption>.npy`` (uint8 [5 N, 32, 32, 3], severities 1
            to 5 one after the other) and ``labels.npy`` [5 N].
        variant: ``"cifar10"`` or ``"cifar100"``.
        corruption: the name of the file, such as ``"fog"``.
        severity: 1 to 5.
        classes: the class names.
        download: fetch the archive (2.9 GB) if the folder is missing.

    Raises:
        FileNotFoundError: if the data is missing and cannot be downloaded.
        ValueError: for a file that cannot be read or has another shape.

    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019, arXiv 1903.12261.
    """

    def __init__(
        self,
        root: str | Path,
        variant: str,
        corruption: str,
        severity: int,
        classes: Sequence[str],
        download: bool = False,
    ) -> None:
        check_choice("variant", variant, list(_PUBLISHED))
        if severity not in range(1, 6):
            raise ValueError(f"severity={severity} must be 1 (weak) to 5.")
        self.root, self.variant, self.corruption, self.severity = Path(root), variant, corruption, severity
        self.classes = list(classes)
        folder = require_folder(self.root, _CORRUPTED[variant], download)
        images = _load_array(folder / f"{corruption}.npy")
        labels = _load_array(folder / "labels.npy")
        if labels.ndim != 1:
            raise ValueError(
                f"{folder / 'labels.npy'} has shape {labels.shape}: it should be one class index an image."
            )
        if images.shape != (len(labels), _SIDE, _SIDE, 3) or images.dtype != np.uint8 or len(labels) % 5:
            raise ValueError(
                f"{folder / corruption}.npy has shape {images.shape} and type {images.dtype}, but with the "
                f"{len(labels)} labels of labels.npy it should be uint8 {(len(labels), _SIDE, _SIDE, 3)}."
            )
        count = len(labels) // 5
        part = slice((severity - 1) * count, severity * count)
        self.data = images[part]
        self.targets = class_indices(folder / "labels.npy", labels[part], len(self.classes))

    def image_identity(self, index: int) -> tuple[str, str, int]:
        """Return the place of the test image that is corrupted here."""
        return self.variant, "test", index


def _read_batch(path: Path, label_key: str) -> tuple[np.ndarray, list[int]]:
    """Return the images uint8 [N, 32, 32, 3] and class indices of one of CIFAR's pickled batches."""
    pixels, labels = np.asarray(_unpickle(path, "data")), list(_unpickle(path, label_key))
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * _SIDE * _SIDE):
        raise ValueError(
            f"{path} has images of shape {pixels.shape} for {len(labels)} labels: it should be uint8 [N, 3072]."
        )
    return pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), labels


class _Unpickler(pickle.Unpickler):
    """Reads lists, strings, numbers and arrays of these, which is all that CIFAR's files have, and runs no code."""

    _KNOWN = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("_codecs", "encode"),  # how Python 3 writes the bytes of an array in protocol 2
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of CIFAR does")
        return super().find_class(module, name)


def _unpickle(path: Path, key: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: extract the archive that it belongs to again.")
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()[key]
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): extract its archive again."
        ) from None


def _load_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: extract the archive that it belongs to again.")
    with readable(path, "extract its archive again"):
        array = np.load(path, mmap_mode="r")
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return array


# ---- benchmarks ------------------------------------------------------------------------------------------------------


@takes(ClassOptions)
def split_cifar10(
    n_experiences: int | Sequence[int] = 5,
    seed: int = 0,
    *,
    corruption_source: str = "published",
    size: Size = _SIDE,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """CIFAR-10 in experiences of a few classes, with CIFAR-10-C or corruptions made here as OOD streams.

    Everything is as in ``split_cifar100``, with 10 classes and ``cifar-10-batches-py/`` and ``CIFAR-10-C/`` below
    ``dataset_root`` (None: ~/.avalanche/data/cifar10).
    """
    return _split_cifar("cifar10", n_experiences, seed, corruption_source, size, dataset_root, download, **options)


@takes(ClassOptions)
def split_cifar100(
    n_experiences: int | Sequence[int] = 10,
    seed: int = 0,
    *,
    corruption_source: str = "published",
    size: Size = _SIDE,
    dataset_root: str | Path | None = None,
    download: bool = True,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """CIFAR-100 in experiences of a few classes, with CIFAR-100-C or corruptions made here as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, and one ``ood_<corruption>_<severity>`` per
    corruption and severity.

    Args:
        n_experiences: 5, 10 and 20 are usual; it must divide the number of classes (or a list of how many classes each
            has; see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation images and the shots, each independently of the others.
        corruption_source: ``"published"`` for the files of CIFAR-10-C and CIFAR-100-C; ``"made"`` for
            ``with_corruptions``, with the same constants and noise drawn anew.
        size: side of the images in pixels, 32 to 512; bilinear. Images are corrupted before they are resized.
        dataset_root: holds ``cifar-100-python/`` and ``CIFAR-100-C/``; None for ~/.avalanche/data/cifar100.
        download: fetch what is missing (169 MB; CIFAR-C 2.9 GB), with progress and checksum.
        options: see ``ClassOptions``.
    """
    return _split_cifar("cifar100", n_experiences, seed, corruption_source, size, dataset_root, download, **options)


def _split_cifar(
    variant: str,
    n_experiences: int | Sequence[int],
    seed: int,
    source: str,
    size: Size,
    dataset_root: str | Path | None,
    download: bool,
    **options: Any,
) -> DescribedScenario:
    check_size(size, 32, 512)
    if size != _SIDE:  # by the transforms and not in the dataset, because corruptions come before it
        resize = size if callable(size) else Resize([size, size])
        for name in ("train_transform", "eval_transform"):
            options[name] = resize if options[name] is None else Compose([resize, options[name]])
    check_choice("corruption_source", source, ("published", "made"))
    root = data_root(dataset_root, variant)
    train, test = (Cifar(root, variant, part, download) for part in ("train", "test"))
    published: dict[str, CorruptedCifar] = {}
    if options["corruptions"] and source == "published":
        from ftp_cl.benchmarks.corruptions import check_corruptions, check_severities

        if options["corrupted"] != "test":
            raise ValueError("The published corruptions are of test images: others take corruption_source='made'.")
        published = {
            f"{name}_{severity}": CorruptedCifar(root, variant, name, severity, train.classes, download)
            for name in check_corruptions(options.pop("corruptions"))
            for severity in check_severities(options["severities"])
        }
    settings = {"size": size, "corruption_source": source}
    options |= {"n_experiences": n_experiences, "seed": seed}
    return class_benchmark(f"split_{variant}", train, test, settings, published, **options)
