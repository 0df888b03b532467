"""Plugins after an interrupt, in strategies that lack hooks, and with optimizers that others wrap."""

import math

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import MER
from torch import nn

from ftp_cl.optim import AnchoredSteps, FixedRadius, SelectiveDecay
from ftp_cl.optim.checks import followers
from ftp_cl.plugins import (
    AnchorPenalty,
    DarkExperienceReplay,
    FeatureDistillation,
    FixedRadiusPlugin,
    FreshOptimizer,
    FTPPlugin,
    LearningRateSchedule,
    PseudoLabel,
    SPDPlugin,
    TPGMPlugin,
)


class Interrupt(SupervisedPlugin):
    """Stops training after so many updates, once, and keeps what it saw at each."""

    def __init__(self, last, look):
        super().__init__()
        self.last, self.look, self.seen = last, look, []

    def after_update(self, strategy, **kwargs):
        self.seen.append(self.look(strategy))
        if len(self.seen) == self.last:
            raise KeyboardInterrupt


def test_a_rerun_after_an_interrupt_has_one_rule(benchmark, body_and_head, make_strategy):
    model = body_and_head()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        first = make_strategy(model, SPDPlugin(), Interrupt(1, id), optimizer=optimizer)
        first.train(benchmark.train_stream[0])
    by_hand = AnchoredSteps(SelectiveDecay(), {}).attach(optimizer)
    hooks = Interrupt(None, lambda strategy: followers(strategy.optimizer, AnchoredSteps))
    plugins = [SPDPlugin(), FixedRadiusPlugin(0.1)]
    make_strategy(model, *plugins, hooks, optimizer=optimizer).train(benchmark.train_stream[0])
    assert [type(steps.rule) for steps in hooks.seen[-1]] == [SelectiveDecay, SelectiveDecay, FixedRadius]
    assert followers(optimizer, AnchoredSteps) == [by_hand]


def test_the_rate_after_an_interrupt_begins_anew(benchmark, body_and_head, make_strategy):
    rates = Interrupt(3, lambda strategy: strategy.optimizer.param_groups[0]["lr"])
    strategy = make_strategy(body_and_head(), LearningRateSchedule(), rates, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream[0])
    strategy.train(benchmark.train_stream[0])
    assert rates.seen[3:] == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])


@pytest.mark.parametrize(
    "make",
    [AnchorPenalty, TPGMPlugin, FeatureDistillation, DarkExperienceReplay, lambda: PseudoLabel(view=nn.Identity())],
)
def test_what_meta_learning_would_not_call_is_refused(benchmark, vector_classifier, make):
    model = vector_classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = MER(model=model, optimizer=optimizer, plugins=[make()], evaluator=None)
    with pytest.raises(TypeError, match="would do nothing in MER, which"):
        strategy.train(benchmark.train_stream[0])


def test_an_optimizer_without_hooks_is_named(benchmark, body_and_head, make_strategy):
    class Bare(torch.optim.Optimizer):
        def __init__(self, inner):
            self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state

        def zero_grad(self, set_to_none=True):
            self.inner.zero_grad()

    for plugin in (FTPPlugin(), FixedRadiusPlugin(0.1)):
        model = body_and_head()
        strategy = make_strategy(model, plugin, optimizer=Bare(torch.optim.SGD(model.parameters(), lr=0.1)))
        with pytest.raises(TypeError, match="attach to its attribute `inner`"):
            strategy.train(benchmark.train_stream[0])


def test_a_fresh_optimizer_is_so_within_a_wrapper(benchmark, body_and_head, make_strategy):
    class Wrapper(torch.optim.Optimizer):  # as SAM is made
        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.inner, self.param_groups = inner, inner.param_groups

        def first_step(self): ...

        def second_step(self): ...

        def step(self):
            self.inner.step()

    model = body_and_head()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    strategy = make_strategy(model, FreshOptimizer(), optimizer=Wrapper(inner), epochs=1)
    strategy.train(benchmark.train_stream[0])
    assert inner.state
    strategy.train_epochs = 0
    strategy.train(benchmark.train_stream[1])
    assert not inner.state


def test_that_nothing_is_left_to_project_is_said_once(benchmark, make_strategy, caplog):
    strategy = make_strategy(nn.Linear(6, 4), FTPPlugin(), epochs=1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "FTP projects nothing: `exclude` leaves no parameter of the model."
    ]
