"""A small stream of vectors, models for it, and a strategy that trains them."""

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import nn
from torch.utils.data import TensorDataset

from ftp_cl.models import ContinualClassifier, CosineHead


def _data(sizes=(12, 12, 8, 8), seed=0):
    torch.manual_seed(seed)
    targets = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    dataset = TensorDataset(torch.randn(len(targets), 6) + targets[:, None], targets)
    dataset.targets = targets.tolist()
    return as_classification_dataset(dataset)


@pytest.fixture
def data():
    """Vectors of four classes, so many of each."""
    return _data


@pytest.fixture
def benchmark():
    """Two experiences of two classes, 24 and 16 vectors."""
    return nc_benchmark(_data(), _data(), n_experiences=2, task_labels=False, fixed_class_order=[0, 1, 2, 3])


@pytest.fixture
def body_and_head():
    def make():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))

    return make


@pytest.fixture
def vector_classifier():
    """A ContinualClassifier whose images are vectors."""

    def make():
        torch.manual_seed(1)
        return ContinualClassifier(nn.Sequential(nn.Linear(6, 5), nn.Tanh()), 5, head=CosineHead(5))

    return make


@pytest.fixture
def make_strategy():
    def make(model, *plugins, kind=Naive, batch_size=100, epochs=5, optimizer=None, **options):
        return kind(
            model=model, optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
            train_mb_size=batch_size, train_epochs=epochs, eval_mb_size=50, plugins=list(plugins), evaluator=None,
            **{"criterion": nn.CrossEntropyLoss(), **options},
        )  # fmt: skip

    return make


@pytest.fixture
def whole_batch():
    """All vectors of an experience with their labels."""

    def stack(experience):
        rows = [experience.dataset[i] for i in range(len(experience.dataset))]
        return torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])

    return stack


@pytest.fixture
def watch():
    """A plugin that calls a function before each update and keeps what it returns."""

    class Watch(SupervisedPlugin):
        def __init__(self, look):
            super().__init__()
            self.look, self.seen = look, []

        def before_update(self, strategy, **kwargs):
            self.seen.append(self.look(strategy))

    return Watch
