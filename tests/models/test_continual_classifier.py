"""ContinualClassifier: normalisation, imprinting from experiences, and training by Avalanche's strategies."""

import copy
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream, with_classes_timeline
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import MultiHeadClassifier
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, LwFPlugin, ReplayPlugin
from torch import nn
from torch.nn.functional import normalize

from ftp_cl.models import ContinualClassifier, CosineHead, LinearHead, Normalization, small_cnn
from ftp_cl.plugins import SeparatedSoftmax


def naive(model, **options):
    options = {"train_mb_size": 12, "train_epochs": 6, "eval_mb_size": 64, **options}
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss(),
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True)),
        **options,
    )


def accuracy(strategy, stream):
    return strategy.eval(stream)["Top1_Acc_Stream/eval_phase/test_stream"]


def mean_directions(model, experience, classes):
    """The rows that imprinting ought to give, from all images of the experience at once."""
    model = copy.deepcopy(model).eval()
    items = [experience.dataset[index] for index in range(len(experience.dataset))]
    images, targets = torch.stack([item[0] for item in items]), torch.tensor([item[1] for item in items])
    directions = normalize(model.features(images).detach(), dim=1)
    return torch.stack([directions[targets == label].mean(0) for label in classes])


def test_images_are_normalised_in_the_model():
    model = ContinualClassifier(
        nn.Flatten(), 12, normalization=Normalization(mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0])
    )
    images = torch.rand(2, 3, 2, 2)
    expected = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(model.features(images), expected.flatten(1))


def test_mean_and_std_follow_the_model_and_are_not_saved():
    model = small_cnn()
    assert not [name for name in model.state_dict() if name.startswith("normalization")]
    assert model.double()(torch.rand(2, 1, 8, 8, dtype=torch.float64)).shape == (2, 2)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"\[B, 1, H, W\], got \[2, 3, 8, 8\]"),
        (torch.rand(1, 8, 8), r"\[B, 1, H, W\]"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\[0, 1\]"),
    ],
)
def test_images_of_a_wrong_kind_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        small_cnn()(images)


def test_mean_and_std_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="mean has 3"):
        Normalization([0.0, 0.0, 0.0], [1.0])


def test_a_backbone_that_does_not_pool_is_refused():
    with pytest.raises(ValueError, match=r"must return \[B, 4\], got \[2, 4, 6, 6\]"):
        ContinualClassifier(nn.Conv2d(1, 4, 3), 4)(torch.rand(2, 1, 8, 8))


def test_get_classifier_returns_the_head():
    model = small_cnn(head="linear")
    assert model.get_classifier() is model.head
    assert isinstance(model.head, LinearHead)


def test_channels_last_changes_the_layout_and_not_the_features():
    layouts = []
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone[0].register_forward_pre_hook(
        lambda module, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.rand(2, 3, 8, 8)
    plain = ContinualClassifier(backbone, 4).features(images)
    torch.testing.assert_close(ContinualClassifier(backbone, 4, channels_last=True).features(images), plain)
    assert layouts == [False, True]


def test_training_imprints_new_classes_and_leaves_seen_ones(make_stream):
    model, stream = small_cnn(), make_stream().train_stream
    expected = mean_directions(model, stream[0], [0, 1])
    avalanche_model_adaptation(model, stream[0])
    torch.testing.assert_close(model.head.weight, expected)

    with torch.no_grad():
        model.head.weight[0] = 7.0
    avalanche_model_adaptation(model, stream[0])
    avalanche_model_adaptation(model, stream[1])
    assert (model.head.weight[0] == 7.0).all()
    torch.testing.assert_close(model.head.weight[2:], mean_directions(model, stream[1], [2, 3]))
    assert model.head.imprinted.tolist() == [1, 1, 1, 1]


def test_imprinting_covers_every_batch(make_stream):
    model, stream = small_cnn(), make_stream(classes=2, experiences=1, per_class=75).train_stream
    expected = mean_directions(model, stream[0], [0, 1])
    model.adaptation(stream[0])
    torch.testing.assert_close(model.head.weight, expected)


def test_evaluation_neither_imprints_nor_activates(make_stream):
    model, stream = small_cnn(), make_stream().train_stream
    avalanche_model_adaptation(model, stream[0])
    model.eval()
    before = copy.deepcopy(model.state_dict())
    avalanche_model_adaptation(model, stream[2])
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 6)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.train()
    avalanche_model_adaptation(model, stream[2])
    assert model.head.imprinted.tolist() == [1, 1, 0, 0, 1, 1]


class Noisy(nn.Module):
    """A backbone that draws from every generator, as transforms of images may."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)

    def forward(self, images):
        torch.rand(1), np.random.rand(), random.random()
        return self.norm(images.flatten(1))


def test_imprinting_leaves_no_trace(make_stream):
    model = ContinualClassifier(nn.Sequential(Noisy(), nn.Dropout()), 64)
    model.backbone[0].norm.eval()
    flags = [module.training for module in model.modules()]
    statistics = copy.deepcopy(model.backbone.state_dict())
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    avalanche_model_adaptation(model, make_stream().train_stream[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(new, old) for new, old in zip(np.random.get_state(), states[1], strict=True))
    assert random.getstate() == states[2]
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(statistics[name], value) for name, value in model.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.head.weight.requires_grad


def test_training_flags_come_back_after_an_error(make_stream):
    model = small_cnn(in_channels=3)
    with pytest.raises(ValueError, match="images"):
        avalanche_model_adaptation(model, make_stream().train_stream[0])
    assert all(module.training for module in model.modules())


def test_imprinting_uses_the_evaluation_transforms(make_stream):
    model, plain = small_cnn(), make_stream().train_stream[0]
    augmented = plain.dataset.train().replace_current_transform_group(torch.zeros_like)
    assert not augmented[0][0].any()
    model.adaptation(SimpleNamespace(dataset=augmented, classes_in_this_experience=[0, 1]))
    torch.testing.assert_close(model.head.weight, mean_directions(model, plain, [0, 1]))


def test_a_resumed_model_does_not_imprint_again(make_stream):
    stream = make_stream().train_stream
    trained = small_cnn()
    avalanche_model_adaptation(trained, stream[0])
    resumed = small_cnn()
    resumed.load_state_dict(trained.state_dict())
    avalanche_model_adaptation(resumed, stream[0])
    assert torch.equal(resumed.head.weight, trained.head.weight)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_copies_behave_alike_and_go_on_alike(make_stream, head, duplicate):
    stream = make_stream().train_stream
    model = small_cnn(head=head)
    avalanche_model_adaptation(model, stream[0])
    twin = duplicate(model)
    for one in (model, twin):
        avalanche_model_adaptation(one, stream[1])
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(twin.eval()(images), model.eval()(images))


@pytest.mark.parametrize("class_order", [None, [5, 2, 0, 3, 1, 4]])
@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_naive_and_replay_learn_a_class_incremental_stream(make_stream, head, class_order):
    torch.manual_seed(0)
    benchmark = make_stream(class_order=class_order)
    strategy = naive(small_cnn(head=head), plugins=[ReplayPlugin(mem_size=36)])
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert accuracy(strategy, benchmark.test_stream) > 0.7


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_evaluating_while_training_leaves_no_stale_parameters(make_stream, head):
    benchmark = make_stream()
    strategy = naive(small_cnn(head=head), eval_every=1, train_epochs=2)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        held = {id(parameter) for group in strategy.optimizer.param_groups for parameter in group["params"]}
        assert held == {id(parameter) for parameter in strategy.model.parameters()}


def test_an_imprinted_head_classifies_before_any_step(make_stream):
    torch.manual_seed(0)
    benchmark = make_stream()
    model = small_cnn()
    for experience in benchmark.train_stream:
        avalanche_model_adaptation(model, experience)
    assert accuracy(naive(model), benchmark.test_stream) > 0.4


@pytest.mark.parametrize("boundaries", [True, False])
def test_online_streams_imprint_each_class_once(make_stream, boundaries):
    benchmark = make_stream()
    split = split_online_stream(benchmark.train_stream, experience_size=4, seed=0, access_task_boundaries=boundaries)
    with pytest.warns(UserWarning, match="converted to a list"):
        online = with_classes_timeline(split)
    model = small_cnn()
    strategy = naive(model, train_epochs=1, train_mb_size=4)
    first = mean_directions(model, benchmark.train_stream[0] if boundaries else online[0], [0, 1])
    imprinted = []
    imprint = CosineHead.imprint

    def recording(head, features, targets):
        imprint(head, features, targets)
        imprinted.append((targets.unique().tolist(), head.weight.detach().clone()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CosineHead, "imprint", recording)
        for experience in online:
            strategy.train(experience)
    assert sorted(label for classes, _ in imprinted for label in classes) == list(range(6))
    torch.testing.assert_close(imprinted[0][1], first)


def test_an_online_stream_without_class_lists_is_refused_with_the_remedy(make_stream):
    online = split_online_stream(make_stream().train_stream, experience_size=4, seed=0)
    with pytest.raises(ValueError, match="with_classes_timeline"):
        naive(small_cnn()).train(next(iter(online)))


def test_items_with_task_labels_are_imprinted(make_images):
    images = make_images(classes=4, per_class=6)
    experience = nc_benchmark(images, images, n_experiences=2, task_labels=True, shuffle=False).train_stream[1]
    assert len(experience.dataset[0]) == 3
    model = small_cnn()
    model.adaptation(experience)
    assert model.head.imprinted.tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(model.head.weight[2:], mean_directions(model, experience, [2, 3]))


def test_a_head_of_ones_own_is_left_to_itself(make_stream):
    model = ContinualClassifier(nn.Flatten(), 64, head=nn.Linear(64, 3))
    avalanche_model_adaptation(model, make_stream().train_stream[0])
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("later", [False, True])
def test_a_multi_head_gets_the_task_labels_and_its_logits_are_those_of_the_tasks_layer(make_images, later):
    data = as_classification_dataset(make_images(4, 12))
    benchmark = nc_benchmark(data, data, n_experiences=2, task_labels=True, seed=0)
    if later:
        model = ContinualClassifier(nn.Flatten(), 64)
        model.head = MultiHeadClassifier(64)
    else:
        model = ContinualClassifier(nn.Flatten(), 64, head=MultiHeadClassifier(64))
    strategy = naive(model, plugins=[SeparatedSoftmax(), LwFPlugin()])
    for experience in benchmark.train_stream:
        strategy.train(experience)
    results = strategy.eval(benchmark.test_stream)
    assert [value > 0.9 for name, value in results.items() if "Acc_Stream" in name] == [True]
    images = torch.rand(2, 1, 8, 8)
    both = copy.deepcopy(model)(images, torch.tensor([0, 1]))
    for row, (task, experience) in enumerate(zip("01", benchmark.train_stream, strict=True)):
        classes, layer = sorted(experience.classes_in_this_experience), model.head.classifiers[task].classifier
        torch.testing.assert_close(both[row, classes], layer(images[row].flatten())[classes])
    assert set(pickle.loads(pickle.dumps(model))(images, None)) == {0, 1}


def test_a_subclass_that_takes_no_task_labels_refuses_a_multi_head():
    class Own(ContinualClassifier):
        pass

    with pytest.raises(TypeError, match="MultiTaskContinualClassifier"):
        Own(nn.Flatten(), 64, head=MultiHeadClassifier(64))
