"""What a user may bring along, named by import path in test_own_parts.py."""

import copy
import itertools

from avalanche.benchmarks import nc_benchmark, ni_benchmark
from avalanche.benchmarks.scenarios import CLScenario, EagerCLStream
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import LwFPlugin
from torch import nn

from ftp_cl.benchmarks import split_digits
from ftp_cl.benchmarks.digits import Digits
from ftp_cl.benchmarks.scenario import ExperienceData, make_stream, transform_groups
from ftp_cl.models import text_classifier


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


def half_precision_text(pretrained):
    """A language model in bfloat16 with adapters in float32, as they are trained on GPUs."""
    model = text_classifier(pretrained, lora={"rank": 2, "targets": ["query", "value"]})
    for name, parameter in model.backbone.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.bfloat16()
    model.backbone.register_forward_hook(lambda _, __, features: features.float())
    return model


def my_method(model, alpha):
    return [LwFPlugin(alpha=alpha, temperature=2)]


class MyPlugin(SupervisedPlugin):
    """Counts; all plain values, so it takes part in checkpoints by itself."""

    def __init__(self, start):
        super().__init__()
        self.steps = start

    def after_training_iteration(self, strategy, **kwargs):
        self.steps += 1


class Watch(SupervisedPlugin):
    """Keeps the model before each experience, its batches, and in which types the first convolution has answered."""

    def __init__(self):
        super().__init__()
        type(self).last = self
        self.models, self.batches, self.dtypes = [], [], set()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def before_training(self, strategy, **kwargs):
        if not self.batches:
            layer = next(module for module in strategy.model.modules() if isinstance(module, nn.Conv2d))
            layer.register_forward_hook(lambda module, inputs, output: self.dtypes.add(output.dtype))

    def before_training_exp(self, strategy, **kwargs):
        self.models.append(copy.deepcopy(strategy.model))
        self.batches.append([])

    def before_training_iteration(self, strategy, **kwargs):
        self.batches[-1].append((strategy.mb_x.clone(), strategy.mb_y.clone()))


class SavingPlugin(SupervisedPlugin):
    """Holds an iterator, which has no form in a checkpoint, and says itself what to save: where it is."""

    def __init__(self):
        super().__init__()
        self.step, self.rates = 0, itertools.count()

    def before_training_iteration(self, strategy, **kwargs):
        self.step = next(self.rates)
        strategy.optimizer.param_groups[0]["lr"] = 0.001 / (1 + self.step)

    def state_dict(self):
        return {"step": self.step}

    def load_state_dict(self, state):
        self.step, self.rates = state["step"], itertools.count(state["step"] + 1)


class SavingPluginWithStrategy(SavingPlugin):
    def load_state_dict(self, state, strategy):
        assert strategy.optimizer.state_dict()["state"]  # in place already
        super().load_state_dict(state)


class SavingPluginOfEarlierNames(SavingPlugin):
    state_dict = load_state_dict = None

    def checkpoint_state(self):
        return {"step": self.step}

    def restore_state(self, state, its_strategy):
        SavingPlugin.load_state_dict(self, state)


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


def in_order(order, seed):
    """Digits, two classes an experience, trained on in some order; experiences may come again or be left out."""
    benchmark = split_digits(5, seed=seed)
    train = EagerCLStream("train", [benchmark.train_stream[number] for number in order], set_stream_info=False)
    for experience in train:
        experience.origin_stream = train
    return CLScenario([train, benchmark.test_stream, benchmark.streams["ood_inverted"]])


def tasks_in_turns(seed):
    """Four experiences of the tasks 0, 1, 0, 1, whose test sets have 10, 20, 30 and 40 images."""
    streams = []
    for name, sizes in (("train", [60] * 4), ("test", [10, 20, 30, 40])):
        digits = Digits(name)
        experiences = []
        for number, size in enumerate(sizes):
            classes = [2 * number, 2 * number + 1]
            indices = [i for i, target in enumerate(digits.targets) if target in classes][:size]
            experiences.append(ExperienceData(digits, indices, classes, number % 2))
        streams.append(make_stream(name, experiences, transform_groups(None, None)))
    return CLScenario(streams)


def one_test_set(seed):
    """New images of the same classes with each experience, and one test experience."""
    return ni_benchmark(Digits("train"), Digits("test"), n_experiences=3, seed=seed)
