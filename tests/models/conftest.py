"""A small class-incremental stream of random images, one brightness pattern a class."""

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset


class Images(torch.utils.data.Dataset):
    """Images [channels, 8, 8] in [0, 1]: a pattern of the class, and noise."""

    def __init__(self, classes: int, per_class: int, channels: int = 1, seed: int = 1):
        patterns = torch.rand(classes, channels, 8, 8, generator=torch.Generator().manual_seed(0))
        noise = torch.rand(classes, per_class, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
        self.images = (0.7 * patterns[:, None] + 0.3 * noise).flatten(0, 1)
        self.targets = torch.arange(classes).repeat_interleave(per_class).tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


@pytest.fixture
def make_images():
    """Return the data set of images."""
    return Images


@pytest.fixture
def make_stream():
    """Return a function that builds a benchmark of consecutive classes; the same images every time."""

    def make(classes=6, experiences=3, per_class=12, channels=1, class_order=None):
        data = {
            name: as_classification_dataset(Images(classes, per_class, channels, seed))
            for name, seed in (("train", 1), ("test", 2))
        }
        order = class_order or list(range(classes))
        return class_incremental_benchmark(data, num_experiences=experiences, class_order=order)

    return make
