"""SLCA's classifier alignment: its statistics, what it corrects, and that training goes on as if it had not been."""

import copy

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch import nn

from ftp_cl.plugins import ClassifierAlignment
from ftp_cl.plugins.classifier_alignment import gaussian


@pytest.mark.parametrize("images", [4, 40])
def test_a_gaussian_has_the_sample_mean_and_covariance_in_no_more_rows_than_features(images):
    features = np.random.default_rng(0).normal(size=(images, 6)) @ np.diag([1, 2, 3, 4, 5, 6])
    mean, factor = gaussian(torch.from_numpy(features))
    np.testing.assert_allclose(mean, features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(factor.T @ factor, np.cov(features.T), atol=1e-4)
    assert len(factor) == min(images, 6)


def test_drawn_features_have_the_moments_of_their_class_and_means_of_the_past_are_shrunk():
    plugin = ClassifierAlignment(samples=40_000)
    covariance = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    factor = torch.linalg.cholesky(covariance).T
    plugin._gaussians = {7: (torch.tensor([10.0, 0.0]), factor), 2: (torch.tensor([0.0, 10.0]), factor)}
    plugin._experiences = [[7], [2]]
    features, targets = plugin._drawn(torch.Generator().manual_seed(0))
    for position, mean in enumerate(([9.5, 0.0], [0.0, 10.0])):  # 0.9 + 0.1 * 1 / 2, and 0.9 + 0.1 * 2 / 2
        own = features[targets == position]
        torch.testing.assert_close(own.mean(0), torch.tensor(mean), atol=0.05, rtol=0)
        torch.testing.assert_close(own.T.cov(), covariance, atol=0.08, rtol=0)


def test_logits_are_divided_by_the_mean_length_of_those_of_each_experience():
    plugin = ClassifierAlignment(temperature=0.5)
    plugin._experiences = [[2, 0], [1]]
    logits = torch.tensor([[4.0, 9.0, 3.0]])  # lengths 5 and 9: 7 on average
    torch.testing.assert_close(plugin._normalised(logits), torch.tensor([[3.0, 4.0, 9.0]]) / 3.5)


def test_a_head_that_answers_with_the_newest_classes_tells_all_apart_again():
    plugin = ClassifierAlignment(epochs=10, lr=1.0)
    means = 2 + 4 * torch.eye(4)
    plugin._gaussians = {label: (mean, 0.5 * torch.eye(4)) for label, mean in enumerate(means)}
    plugin._experiences = [[0, 1], [2, 3]]
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.1], [0.1], [1.0], [1.0]]) * means)  # rows learned last are ten times as long
        head.bias.zero_()
    features = (means[:, None] + 0.5 * torch.randn(4, 50, 4)).flatten(0, 1)
    targets = torch.arange(4).repeat_interleave(50)
    accuracy = [
        (each(features).argmax(1) == targets).float().mean() for each in (head, plugin._align(copy.deepcopy(head)))
    ]
    assert accuracy[0] < 0.6 and accuracy[1] > 0.95


def test_evaluations_use_the_aligned_head_and_training_goes_on_with_the_one_before(
    benchmark, vector_classifier, make_strategy
):
    outcomes = {}
    for aligned in (False, True):
        model = vector_classifier()
        plugins = [ClassifierAlignment()] if aligned else []
        strategy = make_strategy(model, *plugins, epochs=1)
        for experience in benchmark.train_stream:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)
        own = plugins[0]._own_head if aligned else model.head
        outcomes[aligned] = copy.deepcopy(own.state_dict()), torch.get_rng_state(), model.head
    for name, value in outcomes[False][0].items():
        assert torch.equal(value, outcomes[True][0][name]), name
    assert torch.equal(outcomes[False][1], outcomes[True][1])
    assert not torch.equal(outcomes[True][2].weight, outcomes[True][0]["weight"])


def test_what_it_cannot_do_is_refused(data, make_strategy, vector_classifier):
    for options in ({"epochs": 0}, {"samples": -1}, {"lr": 0.0}, {"temperature": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.* must be above 0"):
            ClassifierAlignment(**options)
    single = nc_benchmark(data((3, 1)), data((3, 1)), n_experiences=1, task_labels=False, fixed_class_order=[0, 1])
    strategy = make_strategy(vector_classifier(), ClassifierAlignment())
    with pytest.raises(ValueError, match="Class 1 has one training image, and ClassifierAlignment needs two"):
        strategy.train(single.train_stream[0])
    assert strategy.clock.train_iterations == 0
    plain = nn.Linear(6, 2)
    with pytest.raises(TypeError, match=r"needs a ContinualClassifier .*, not Linear"):
        make_strategy(plain, ClassifierAlignment()).train(single.train_stream[0])
