"""Where experiences begin and end, and what is trained on under joint training."""

import pytest
from avalanche.benchmarks import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training import JointTraining as AvalancheJointTraining
from torch import nn
from torch.optim import SGD

from ftp_cl.plugins import JointTraining
from ftp_cl.plugins.stages import PartsDone, classes_trained_on, experiences_trained_on, whole_experience


@pytest.mark.parametrize(("size", "drop_last", "counts"), [(8, False, (3, 2)), (9, False, (3, 2)), (9, True, (2, 1))])
def test_parts_of_an_experience_begin_and_end_where_it_does(benchmark, size, drop_last, counts):
    parts, seen = PartsDone(), []
    stream = split_online_stream(benchmark.train_stream, size, drop_last=drop_last, access_task_boundaries=True)
    for experience in stream:
        number = whole_experience(experience).current_experience
        seen.append((number, parts.begin(experience), parts.end(experience)))
    assert seen == [
        (number, part == 0, part == count - 1) for number, count in enumerate(counts) for part in range(count)
    ]


def test_hidden_boundaries_are_no_boundaries_and_whole_experiences_have_both(benchmark):
    parts = PartsDone()
    for experience in split_online_stream(benchmark.train_stream, 8):
        assert not parts.begin(experience) and not parts.end(experience)
        assert whole_experience(experience) is experience
    assert parts.begin(benchmark.train_stream[1]) and parts.end(benchmark.train_stream[1])


class Watch(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.seen = []

    def look(self, strategy, **kwargs):
        numbers = [experience.current_experience for experience in experiences_trained_on(strategy)]
        self.seen.append((numbers, classes_trained_on(strategy)))

    before_training_exp = after_training_exp = look


def test_joint_training_trains_on_all_experiences(benchmark, body_and_head, make_strategy):
    watch = Watch()
    model = body_and_head()
    AvalancheJointTraining(
        model=model, optimizer=SGD(model.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(), plugins=[watch],
        evaluator=None, train_mb_size=20,
    ).train(benchmark.train_stream)  # fmt: skip
    assert watch.seen == [([0, 1], [0, 1, 2, 3])] * 2
    watch.seen.clear()
    strategy = make_strategy(body_and_head(), watch)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert watch.seen == [([0], [0, 1])] * 2 + [([1], [2, 3])] * 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1,), (0, 0, 1)])
@pytest.mark.parametrize("joint_first", [True, False])
def test_joint_training_happens_in_the_first_experience_that_is_trained(
    benchmark, vector_classifier, make_strategy, watch, order, joint_first
):
    looker, sizes, joint = Watch(), watch(lambda strategy: len(strategy.mb_x)), JointTraining()
    plugins = [joint, looker] if joint_first else [looker, joint]
    strategy = make_strategy(vector_classifier(), *plugins, sizes, epochs=2)
    for number in order:
        strategy.train(benchmark.train_stream[number])
    assert sizes.seen == [40, 40] and strategy.train_epochs == 2
    assert looker.seen == [([0, 1], [0, 1, 2, 3])] * 2 + [([], [])] * 2 * (len(order) - 1)
