"""Small datasets of coloured squares, and a strategy that evaluates."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset


class Squares(Dataset):
    """Noisy images whose colour says the class."""

    def __init__(self, classes, per_class=4, size=32, seed=0):
        generator = np.random.default_rng(seed)
        self.classes = list(classes)
        self.targets = [c for c in range(len(self.classes)) for _ in range(per_class)]
        self.images = generator.integers(0, 256, (len(self.targets), size, size, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.targets[index]


@pytest.fixture
def squares():
    return Squares


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)
