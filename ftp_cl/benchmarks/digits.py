"""split_digits: scikit-learn's 8 x 8 digits as a stream, to try a whole experiment in seconds."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Unpack

import numpy as np
import torch

from ftp_cl.benchmarks._checks import check_choice, check_size
from ftp_cl.benchmarks._dataset import RebuildableDataset
from ftp_cl.benchmarks.options import DescribedScenario, SplitOptions, class_benchmark, takes

CLASSES = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
_STORED_SIZE = 8
_TEST_SHARE = 0.3


class Digits(RebuildableDataset):
    """The 1797 handwritten digits of scikit-learn, split into a training and a test part.

    An item is ``(image, target)``: a float tensor [channels, size, size] in [0, 1] and the digit. The test part holds
    30 % of each class, always the same ones.

    Args:
        split: ``"train"`` or ``"test"``.
        inverted: dark on bright instead of bright on dark.
        channels: 1, or 3 equal ones.
        size: side of the images in pixels, 8 to 64; bilinear.

    Raises:
        ValueError: for a split, number of channels or size that does not exist.
    """

    def __init__(self, split: str, inverted: bool = False, channels: int = 1, size: int = _STORED_SIZE) -> None:
        check_choice("split", split, ("train", "test"))
        check_size(size, 8, 64)
        if channels not in (1, 3):
            raise ValueError(f"channels={channels} is neither 1 nor 3.")
        self.split = split
        self.inverted = inverted
        self.channels = channels
        self.size = size

        self.classes = list(CLASSES)
        images, labels = _read_digits()
        generator, members = np.random.default_rng(0), []
        for digit in range(len(CLASSES)):
            drawn = generator.permutation(np.flatnonzero(labels == digit)).tolist()
            n_test = round(_TEST_SHARE * len(drawn))
            members += drawn[:n_test] if split == "test" else drawn[n_test:]
        members.sort()
        data = images[members].unsqueeze(1)
        if size != _STORED_SIZE:
            data = torch.nn.functional.interpolate(data, size=(size, size), mode="bilinear")
        self.data = (1 - data if inverted else data).expand(-1, channels, -1, -1)
        self.targets = labels[members].tolist()

    def image_identity(self, index: int) -> tuple[str, str, int]:
        """Return the part and the place of a digit in it, which neither size nor inversion change."""
        return "digits", self.split, index

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        # A copy, so that a transform that works in place cannot change the data.
        return self.data[index].clone(), self.targets[index]


@lru_cache(maxsize=1)
def _read_digits() -> tuple[torch.Tensor, np.ndarray]:
    # scikit-learn takes a second to import, which users of the other benchmarks need not wait.
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images / 16).float(), digits.target


@takes(SplitOptions, validation_fraction=0.2, train_transform=None, eval_transform=None)
def split_digits(
    n_experiences: int | Sequence[int] = 5,
    seed: int = 0,
    *,
    channels: int = 1,
    size: int = _STORED_SIZE,
    shots: int | None = None,
    fixed_class_order: Sequence[int] | None = None,
    **options: Unpack[SplitOptions],
) -> DescribedScenario:
    """Handwritten 8 x 8 digits, a few per experience, with inverted images as OOD stream: experiments in seconds.

    The streams are ``train``, ``validation``, ``test`` and ``ood_inverted`` (the test images, dark on bright). Images
    are float tensors [channels, size, size] in [0, 1], and by default no transform changes them.

    Args:
        n_experiences: 1, 2, 5 or 10, or a list of how many classes each has.
        seed: draws the class order, the validation images and the shots; the test images are always the same.
        channels: 1, or 3 equal ones for models that want colour.
        size: side of the images in pixels, 8 to 64.
        shots: training images per class; None for all (98 to 102 at the default validation fraction).
        fixed_class_order: the 10 digits in order of arrival, instead of the order drawn.
        options: see ``SplitOptions``.
    """
    train, test = (Digits(part, channels=channels, size=size) for part in ("train", "test"))
    return class_benchmark(
        "split_digits",
        train,
        test,
        {"channels": channels, "size": size},
        {"inverted": Digits("test", inverted=True, channels=channels, size=size)},
        n_experiences=n_experiences,
        seed=seed,
        shots=shots,
        fixed_class_order=fixed_class_order,
        **options,
    )
