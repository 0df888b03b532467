"""HeadFirst and LearningRateSchedule: which part is trained at what rate when."""

import math

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.training.plugins import ReplayPlugin
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ftp_cl.plugins import (
    HeadFirst,
    JointTraining,
    LearningRateSchedule,
)
from ftp_cl.plugins.schedule import learning_rate_factor

# ---- training in stages ---------------------------------------------------------------------------------------------


def test_the_head_is_trained_first_and_what_was_frozen_stays_frozen(benchmark, body_and_head, make_strategy, watch):
    model = body_and_head()
    model[0].bias.requires_grad_(False)
    bodies = watch(lambda strategy: model[0].weight.detach().clone())
    heads = watch(lambda strategy: model[2].weight.detach().clone())
    strategy = make_strategy(model, HeadFirst(0.4), bodies, heads, epochs=5)
    strategy.train(benchmark.train_stream[0])
    moved = [not torch.equal(a, b) for a, b in zip(bodies.seen, bodies.seen[1:], strict=False)]
    assert moved == [False, False, True, True]
    assert not torch.equal(heads.seen[0], heads.seen[1])
    assert model[0].weight.requires_grad and not model[0].bias.requires_grad
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(bodies.seen[5], bodies.seen[7]) and not torch.equal(bodies.seen[7], bodies.seen[8])


def test_lp_ft_needs_an_epoch_for_the_head(benchmark, body_and_head, make_strategy):
    with pytest.raises(ValueError, match=r"share=0.5 of 1 epochs is none"):
        make_strategy(body_and_head(), HeadFirst(0.5), epochs=1).train(benchmark.train_stream[0])


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_rates_follow_the_schedule_in_experiences_of_unequal_length(
    benchmark, schedule, body_and_head, make_strategy, watch
):
    rates = watch(lambda strategy: [group["lr"] for group in strategy.optimizer.param_groups])
    model = body_and_head()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.4}]
    strategy = make_strategy(
        model, LearningRateSchedule(0.25, schedule), rates, batch_size=4, epochs=2,
        optimizer=torch.optim.SGD(groups, lr=1.0),
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience)
        assert [group["lr"] for group in strategy.optimizer.param_groups] == [0.1, 0.4]
    expected = []
    for iterations in (12, 8):
        optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.4)], lr=1.0)
        scheduler = LambdaLR(optimizer, learning_rate_factor(iterations, 0.25, schedule))
        for _ in range(iterations):
            expected.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
    torch.testing.assert_close(torch.tensor(rates.seen), torch.tensor(expected))
    assert rates.seen[0] == pytest.approx([0.1 / 3, 0.4 / 3])


def test_warm_up_rises_to_the_full_rate_and_the_cosine_falls_from_there():
    factor = learning_rate_factor(10, 0.4, "cosine")
    assert [factor(i) for i in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [factor(i) for i in (4, 7)] == pytest.approx([1.0, 0.5])
    assert 0 < factor(9) < 0.07
    assert [learning_rate_factor(10, 0.0, "constant")(i) for i in (0, 9)] == [1.0, 1.0]
    assert learning_rate_factor(4, 1.0, "cosine")(3) == 1.0
    with pytest.raises(ValueError, match=r"warmup=1.5"):
        learning_rate_factor(4, 1.5, "cosine")


def test_the_schedule_counts_the_batches_that_replay_makes(benchmark, body_and_head, make_strategy, watch):
    rates = watch(lambda strategy: strategy.optimizer.param_groups[0]["lr"])
    strategy = make_strategy(
        body_and_head(), ReplayPlugin(20), LearningRateSchedule(0.0), rates, batch_size=4, epochs=1
    )  # fmt: skip
    for experience in benchmark.train_stream:
        strategy.train(experience)
    length = len(rates.seen) - 6
    factor = learning_rate_factor(length, 0.0, "cosine")
    assert rates.seen[6:] == pytest.approx([0.1 * factor(i) for i in range(length)])


def test_a_group_that_is_added_later_ends_with_the_others(benchmark, body_and_head, make_strategy, watch):
    model = body_and_head()
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.1}], lr=0.4)

    def add_a_group(strategy):
        if strategy.clock.train_exp_iterations == 3:
            strategy.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
        return [group["lr"] for group in strategy.optimizer.param_groups]

    rates = watch(add_a_group)
    strategy = make_strategy(
        model, LearningRateSchedule(0.25, "cosine"), rates, batch_size=4, epochs=2, optimizer=optimizer
    )
    strategy.train(benchmark.train_stream[0])
    # 12 iterations, 3 of them rising; the cosine over the other nine.
    shares = [1 / 3, 2 / 3, 1.0] + [(1 + math.cos(math.pi * i / 9)) / 2 for i in range(9)]
    assert [seen[0] for seen in rates.seen] == pytest.approx([0.1 * share for share in shares])
    assert [seen[1] for seen in rates.seen[4:]] == pytest.approx([0.4 * share for share in shares[4:]])
    assert [sorted(group.keys() - optimizer.defaults.keys()) for group in optimizer.param_groups] == [["params"]] * 2
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.4]


def test_experiences_in_parts_have_one_schedule_and_one_time_for_the_head(
    benchmark, body_and_head, make_strategy, watch
):
    model = body_and_head()
    rates = watch(lambda strategy: strategy.optimizer.param_groups[0]["lr"])
    frozen = watch(lambda strategy: not model[0].weight.requires_grad)
    strategy = make_strategy(model, HeadFirst(0.5), LearningRateSchedule(), rates, frozen, epochs=2)
    for experience in split_online_stream(benchmark.train_stream, 4, access_task_boundaries=True):
        strategy.train(experience)
        assert model[0].weight.requires_grad and strategy.optimizer.param_groups[0]["lr"] == 0.1
    lengths = [6 * 2, 4 * 2]  # parts times epochs
    expected = [0.05 * (1 + math.cos(math.pi * i / length)) for length in lengths for i in range(length)]
    assert rates.seen == pytest.approx(expected)
    assert frozen.seen == [i < length / 2 for length in lengths for i in range(length)]
    for plugin in (HeadFirst(0.5), LearningRateSchedule()):
        with pytest.raises(ValueError, match=f"{type(plugin).__name__} needs to know where an experience ends"):
            make_strategy(body_and_head(), plugin).train(next(iter(split_online_stream(benchmark.train_stream, 4))))


def test_lp_ft_says_nothing_about_experiences_without_training(benchmark, vector_classifier, make_strategy):
    strategy = make_strategy(vector_classifier(), JointTraining(), HeadFirst(0.5), epochs=2)
    for experience in benchmark.train_stream:
        strategy.train(experience)


def test_a_cosine_per_epoch_goes_down_between_epochs_only(benchmark, body_and_head, make_strategy, watch):
    rates = watch(lambda strategy: strategy.optimizer.param_groups[0]["lr"])
    schedule = LearningRateSchedule(0.0, "cosine_per_epoch")
    strategy = make_strategy(body_and_head(), schedule, rates, batch_size=4, epochs=3)
    strategy.train(benchmark.train_stream[0])
    # As torch's CosineAnnealingLR(T_max=3): (1 + cos(pi e / 3)) / 2 in epoch e, of six iterations each.
    assert rates.seen == pytest.approx([0.1] * 6 + [0.075] * 6 + [0.025] * 6)
