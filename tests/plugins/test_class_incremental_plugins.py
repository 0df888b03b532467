"""SeparatedSoftmax, FreshOptimizer and the linear discriminant head."""

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn

from ftp_cl.models import ContinualClassifier, EnsembleHead, LinearDiscriminantHead, LinearHead
from ftp_cl.plugins import FreshOptimizer, PrototypeClassifier, SeparatedSoftmax


def test_separated_softmax_leaves_rows_of_earlier_classes_alone(benchmark, make_strategy):
    model = nn.Linear(6, 4)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    strategy = make_strategy(model, SeparatedSoftmax(), FreshOptimizer(), optimizer=adam, batch_size=8)
    strategy.train(benchmark.train_stream[0])
    before = model.weight.detach().clone()
    strategy.train(benchmark.train_stream[1])
    assert torch.equal(model.weight[:2], before[:2])
    assert not torch.equal(model.weight[2:], before[2:])


@pytest.fixture
def steps(watch):
    """How many steps Adam's moments have seen at each update."""
    return watch(lambda strategy: max((int(s["step"]) for s in strategy.optimizer.state.values()), default=0))


def test_the_optimizer_is_fresh_when_an_experience_begins(benchmark, make_strategy, steps):
    model = nn.Linear(6, 4)
    adam = torch.optim.AdamW(model.parameters())
    strategy = make_strategy(model, FreshOptimizer(), steps, optimizer=adam, batch_size=8, epochs=1)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert steps.seen == [0, 1, 2, 0, 1]


def test_linear_discriminant_in_parts_equals_scikit_learn_at_once(data, make_strategy):
    equal = data((10, 10, 10, 10))
    benchmark = nc_benchmark(equal, equal, n_experiences=2, task_labels=False, fixed_class_order=[2, 0, 3, 1])
    model = ContinualClassifier(nn.Identity(), 6, head="linear")
    prototypes = PrototypeClassifier("lda", shrinkage=0.3)
    strategy = make_strategy(model, prototypes)
    model.backbone.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    # Vectors in place of images: the model's features are what comes in.
    model.features = lambda images: images
    features, targets = [], []
    for experience in benchmark.train_stream:
        strategy.train(experience)
        for x, y, _ in experience.dataset:
            features.append(x)
            targets.append(y)
    features, targets = torch.stack(features).double(), torch.tensor(targets)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[0.25] * 4).fit(features, targets)
    logits = prototypes.head(torch.randn(20, 6, generator=torch.Generator().manual_seed(1)).double())
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.from_numpy(reference.predict_log_proba(inputs))
    torch.testing.assert_close(logits.log_softmax(1), expected, rtol=1e-6, atol=1e-6)


def test_linear_discriminant_masks_classes_that_were_not_seen_and_survives_a_state_dict():
    head = LinearDiscriminantHead(3)
    head.update(torch.eye(3).repeat(2, 1) + torch.arange(6)[:, None] * 0.1, torch.tensor([0, 3, 1, 0, 3, 1]))
    logits = head(torch.eye(3))
    assert (logits[:, 2] == -1000).all() and logits.argmax(1).tolist() == [0, 3, 1]
    again = LinearDiscriminantHead(3)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(torch.eye(3)), logits)


def test_linear_discriminant_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="shrinkage"):
        LinearDiscriminantHead(3, shrinkage=2)


@pytest.mark.parametrize(("boundaries", "expected"), [(True, [0, 1, 2, 0, 1]), (False, [0, 1, 2, 3, 4])])
def test_the_optimizer_is_not_fresh_in_each_part_of_an_experience(
    benchmark, make_strategy, steps, boundaries, expected
):
    model = nn.Linear(6, 4)
    strategy = make_strategy(model, FreshOptimizer(), steps, optimizer=torch.optim.AdamW(model.parameters()), epochs=1)
    for experience in split_online_stream(benchmark.train_stream, 8, access_task_boundaries=boundaries):
        strategy.train(experience)
    assert steps.seen == expected


def test_linear_discriminant_of_near_identical_images_chooses_as_scikit_learn_and_no_class_never_trained():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(3, 5).repeat(20)
    centres = torch.randn(5, 6, generator=generator)
    features = centres[targets] + 1e-4 * torch.randn(40, 6, generator=generator)
    images = centres[targets] + torch.randn(40, 6, generator=generator)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5, priors=[0.5] * 2).fit(features, targets)
    head = LinearDiscriminantHead(6)
    head.update(features, targets)
    logits = head(images)
    assert logits.argmax(1).tolist() == reference.predict(images).tolist()
    assert logits[:, 3:].amax(1).abs().max() <= 1000 and (logits.softmax(1)[:, :3] == 0).all()
    together = EnsembleHead([head, head], [6, 0])(images)
    assert together.argmax(1).tolist() == reference.predict(images).tolist()


def test_an_ensemble_standardises_scores_whose_squares_overflow():
    head = LinearHead(3, initial_classes=3)
    head.activate(range(3))
    features = torch.tensor([[0.0, 1.0, 2.0]])
    with torch.no_grad():
        head.classifier.weight.copy_(1e25 * torch.eye(3))
        head.classifier.bias.zero_()
    # Scores 0, 1, 2: mean 1, standard deviation sqrt(2 / 3).
    expected = torch.tensor([[-1.0, 0.0, 1.0]]) / (2 / 3) ** 0.5
    torch.testing.assert_close(EnsembleHead([head], [3])(features), expected)
