"""What a user may bring along, named by import path in test_own_parts.py."""

from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import LwFPlugin
from torch import nn

from ftp_cl.benchmarks.digits import Digits


def my_benchmark(n_experiences, seed):
    return nc_benchmark(
        Digits("train"), Digits("test"), n_experiences=n_experiences, task_labels=False, seed=seed, shuffle=True
    )


class MyModel(nn.Module):
    def __init__(self, width):
        super().__init__()
        from avalanche.models import IncrementalClassifier

        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        self.classifier = IncrementalClassifier(width, initial_out_features=2)

    def forward(self, images):
        return self.classifier(self.body(images))


def my_method(model, alpha):
    return [LwFPlugin(alpha=alpha, temperature=2)]


class MyPlugin(SupervisedPlugin):
    """Counts; all plain values, so it takes part in checkpoints by itself."""

    def __init__(self, start):
        super().__init__()
        self.steps = start

    def after_training_iteration(self, strategy, **kwargs):
        self.steps += 1


class MyStrategy(Naive):
    """A penalty on large outputs, whose strength grows; `seen` is state that only a checkpoint brings back."""

    def __init__(self, *, strength=0.01, **arguments):
        super().__init__(**arguments)
        self.strength, self.seen = strength, []

    def criterion(self):
        loss = super().criterion()
        return loss + self.strength * len(self.seen) * self.mb_output.square().mean() if self.is_training else loss

    def _before_training_exp(self, **kwargs):
        self.seen.append(self.experience.current_experience)
        super()._before_training_exp(**kwargs)


class MyLoop(MyStrategy):
    """Goes through the batches in its own way: each twice."""

    def training_epoch(self, **kwargs):
        for _ in range(2):
            super().training_epoch(**kwargs)


class UnsavablePlugin(SupervisedPlugin):
    """Keeps a generator, which has no form in a checkpoint, while it trains."""

    def __init__(self):
        super().__init__()
        self.counter = None

    def before_training_exp(self, strategy, **kwargs):
        self.counter = (i for i in range(10**9))

    def after_training_exp(self, strategy, **kwargs):
        self.counter = None
