"""SeparatedCriterion against losses computed class group by class group; SeparatedSoftmax in streams of all kinds."""

import math

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from avalanche.training import Cumulative
from avalanche.training import JointTraining as AvalancheJointTraining
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, multi_margin_loss

from ftp_cl.models import LinearHead
from ftp_cl.models.heads import live_classes
from ftp_cl.plugins import JointTraining, SeparatedCriterion, SeparatedSoftmax

CURRENT, OTHERS = torch.tensor([1, 4]), torch.tensor([0, 2, 3])


def separated(criterion, classes=(4, 1), others=None):
    criterion = SeparatedCriterion(criterion)
    criterion.begin(classes, others)
    return criterion


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(4, 5, requires_grad=True), torch.tensor([1, 4, 0, 2])


def per_image(logits, loss=cross_entropy):
    """The loss of each image of `batch` among the classes of its group."""
    places = [(CURRENT, 0), (CURRENT, 1), (OTHERS, 0), (OTHERS, 1)]
    return torch.stack(
        [loss(row[None, of], torch.tensor([place])) for row, (of, place) in zip(logits, places, strict=True)]
    )


@pytest.mark.parametrize("classes", [[0, 1], [2, 7]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_is_over_the_classes_that_compete(classes, smoothing):
    logits = torch.zeros(3, 10)
    criterion = separated(nn.CrossEntropyLoss(label_smoothing=smoothing), classes)
    targets = torch.tensor(classes)[[0, 1, 0]]
    assert criterion(logits, targets).item() == pytest.approx(math.log(2))
    # And over those alone that were trained, where an image of an earlier class comes, or no class is current.
    criterion.begin(classes, others=[[3, 4, 5, *classes]])
    logits = logits.masked_fill(torch.arange(10) == 9, -1000.0)
    assert criterion(logits, torch.tensor([4, 5, 3])).item() == pytest.approx(math.log(3))
    criterion.begin([], others=[[3, 4, 5, *classes]])
    assert criterion(logits, torch.tensor([4, 5, 3])).item() == pytest.approx(math.log(5))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_every_reduction_is_over_the_whole_batch(batch, reduction, weighted, smoothing):
    logits, targets = batch
    weight = torch.tensor([0.5, 2.0, 1.0, 4.0, 3.0, 7.0]) if weighted else None  # one more class than there are yet
    inner = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    loss = separated(inner)(logits, targets)

    def one(row, target):
        of = CURRENT if row.shape[1] == 2 else OTHERS
        own = None if weight is None else weight[of]
        return cross_entropy(row, target, own, label_smoothing=smoothing, reduction="sum")

    expected = per_image(logits, one)
    total = weight[targets].sum() if weighted else 4
    expected = {"none": expected, "sum": expected.sum(), "mean": expected.sum() / total}[reduction]
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert inner.weight is weight and inner.reduction == reduction and inner.ignore_index == -100


@pytest.mark.parametrize("inner", [nn.MultiMarginLoss(), multi_margin_loss])
def test_any_criterion_of_a_mean_is_that_of_each_group(batch, inner):
    logits, targets = batch
    torch.testing.assert_close(separated(inner)(logits, targets), per_image(logits, multi_margin_loss).mean())


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_ignored_images_count_nowhere(batch, options, ignore_index):
    logits, targets = batch[0], torch.tensor([4, ignore_index, 0, 2])
    loss = separated(nn.CrossEntropyLoss(ignore_index=ignore_index, **options))(logits, targets)
    expected = [
        cross_entropy(logits[:1, CURRENT], torch.tensor([1]), **options),
        cross_entropy(logits[2:3, OTHERS], torch.tensor([0]), **options),
        cross_entropy(logits[3:, OTHERS], torch.tensor([1]), **options),
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_images_have_the_mixed_loss(batch, smoothing):
    """Zhang et al. 2018: the loss of a mixed image is that of either label, weighted by its share."""
    logits, targets = batch
    partners = torch.tensor([4, 2, 3, 1])  # of the own group and of the other one
    shares = 0.7 * torch.eye(5)[targets] + 0.3 * torch.eye(5)[partners]
    inner = nn.CrossEntropyLoss(label_smoothing=smoothing)
    criterion = separated(inner)
    expected = 0.7 * criterion(logits, targets) + 0.3 * criterion(logits, partners)
    torch.testing.assert_close(criterion(logits, shares), expected)
    shares = torch.tensor([[0, 0.25, 0, 0, 0.75]]).repeat(4, 1)
    torch.testing.assert_close(criterion(logits, shares), inner(logits[:, CURRENT], shares[:, CURRENT]))


def test_shares_by_hand():
    # Logits 2 and 1 compete: -(0.4 * log(e / (1 + e)) + 0.6 * log(1 / (1 + e))).
    logits, shares = torch.tensor([[9.0, 2.0, 1.0, 9.0]]), torch.tensor([[0.0, 0.4, 0.6, 0.0]])
    loss = separated(nn.CrossEntropyLoss(), [1, 2])(logits, shares)
    assert loss.item() == pytest.approx(math.log(1 + math.e) - 0.4)


def test_binary_losses_are_over_the_logits_of_the_group(batch):
    logits, targets = batch
    shares = torch.eye(5)[targets]
    expected = torch.cat(
        [
            binary_cross_entropy_with_logits(logits[:2, CURRENT], shares[:2, CURRENT], reduction="none").mean(1),
            binary_cross_entropy_with_logits(logits[2:, OTHERS], shares[2:, OTHERS], reduction="none").mean(1),
        ]
    )
    torch.testing.assert_close(separated(nn.BCEWithLogitsLoss())(logits, shares), expected.mean())
    with pytest.raises(ValueError, match="current and other"):
        separated(nn.BCEWithLogitsLoss())(logits, torch.full((4, 5), 0.2))
    with pytest.raises(ValueError, match="do not fit"):
        separated(nn.CrossEntropyLoss())(logits, shares[:, :4])
    with pytest.raises(ValueError, match="for 3 classes"):
        separated(nn.CrossEntropyLoss(torch.ones(3)))(logits, targets)


# ---- in a strategy --------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(make_strategy):
    """A function that trains, and returns the groups that competed in each iteration, and the losses."""

    def train(experiences, *plugins, model=None, **options):
        groups, losses = [], []

        class Watch(SupervisedPlugin):
            def before_backward(self, strategy, **kwargs):
                groups.append(strategy._criterion.current)
                losses.append(strategy.loss.item())

        make_strategy(model or nn.Linear(6, 4), *plugins, Watch(), epochs=1, **options).train(experiences)
        return groups, losses

    return train


def test_what_is_trained_on_counts_and_not_the_experience_alone(benchmark, trained):
    stream, everything = benchmark.train_stream, [0, 1, 2, 3]
    assert trained(stream, SeparatedSoftmax())[0] == [[0, 1], [2, 3]]
    for order in ([SeparatedSoftmax(), JointTraining()], [JointTraining(), SeparatedSoftmax()]):
        assert trained(stream, *order)[0] == [everything]
    assert trained(stream, SeparatedSoftmax(), kind=AvalancheJointTraining)[0] == [everything]
    assert trained(stream, SeparatedSoftmax(), kind=Cumulative)[0] == [[0, 1], everything]


@pytest.mark.parametrize("boundaries", [True, False])
def test_a_mini_experience_stands_for_the_experience_that_it_was_cut_from(benchmark, trained, boundaries):
    online = split_online_stream(benchmark.train_stream, experience_size=1, access_task_boundaries=boundaries)
    groups, losses = trained(online, SeparatedSoftmax())
    assert groups == ([[0, 1]] * 24 + [[2, 3]] * 16 if boundaries else [[]] * 40)
    assert min(losses) > 0


@pytest.mark.parametrize("make_head", [IncrementalClassifier, LinearHead])
def test_in_a_head_that_grows_smoothing_is_over_trained_classes(data, trained, make_head):
    model = nn.Sequential(make_head(6, 4))
    for weight in model.parameters():
        nn.init.zeros_(weight)
    stream = nc_benchmark(data(), data(), 2, task_labels=False, fixed_class_order=[3, 0, 1, 2]).train_stream
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    _, losses = trained(stream[0], SeparatedSoftmax(), model=model, criterion=criterion)  # two of four columns masked
    assert losses[0] == pytest.approx(math.log(2))
    strategy_criterion = SeparatedCriterion(criterion)
    strategy_criterion.begin([1], live_classes(model))
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    # Class 0 competes with 3 alone: 1 is current, 2 was never trained.
    assert strategy_criterion(model(torch.ones(1, 6)), torch.tensor([0])).item() == pytest.approx(math.log(2))
