"""SLDC: the linear map, the loss, and Gaussians that have followed the backbone, against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from ftp_cl.plugins import SLDC
from ftp_cl.plugins.sldc import drift_map, symmetric_cross_entropy


def numpy_map(before, after, ridge, alpha):
    """By a least-squares solver on rows of length 1, with the ridge as further rows."""
    source, target = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (before, after))
    size = source.shape[1]
    rows = np.vstack([source, np.sqrt(ridge) * np.eye(size)])
    fitted = np.linalg.lstsq(rows, np.vstack([target, np.zeros((size, size))]), rcond=None)[0]
    share = np.exp(-len(source) / (alpha * size))
    return (1 - share) * fitted + share * np.eye(size)


@pytest.mark.parametrize(("images", "ridge", "alpha"), [(4, 1e-2, 1.0), (40, 1e-4, 2.0)])
def test_the_map_is_ridge_regression_of_rows_of_length_one_mixed_with_the_identity(images, ridge, alpha):
    generator = np.random.default_rng(0)
    before = 3 * generator.normal(size=(images, 6)) + 1
    after = before @ generator.normal(size=(6, 6)) + generator.normal(size=(images, 6))
    found = drift_map(torch.from_numpy(before), torch.from_numpy(after), ridge, alpha)
    np.testing.assert_allclose(found, numpy_map(before, after, ridge, alpha), rtol=1e-6, atol=1e-8)


def test_symmetric_cross_entropy_by_hand():
    logits = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3 / 4 and 1 / 4
    expected = -(np.log(0.75) + 1e-4 * np.log(0.25) + 0.25 * np.log(1e-4)) / 2
    assert symmetric_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)


def test_gaussians_of_earlier_classes_follow_the_backbone_and_evaluations_use_the_refined_head(
    benchmark, vector_classifier, make_strategy, whole_batch
):
    model, plugin = vector_classifier(), SLDC(samples=32)
    strategy = make_strategy(model, plugin)
    (first, labels), (second, _) = map(whole_batch, benchmark.train_stream)

    def features(vectors):
        with torch.no_grad():
            return model.backbone(vectors).double().numpy()

    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    assert model.head is plugin._aligned is not plugin._own_head  # after the first experience, too
    own = features(first[labels == 1])
    before = features(second)
    strategy.train(benchmark.train_stream[1])
    moved = numpy_map(before, features(second), 1e-4, 1.0)
    assert np.abs(moved - np.eye(5)).max() > 0.05
    mean, factor = plugin._gaussians[1]
    np.testing.assert_allclose(mean, own.mean(axis=0) @ moved, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(factor.T @ factor, moved.T @ np.cov(own.T) @ moved, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(plugin._gaussians[3][0], features(second).reshape(-1, 5)[8:].mean(axis=0), atol=1e-5)


def test_the_refined_head_tells_the_gaussians_apart():
    plugin = SLDC(epochs=20, samples=64, lr=0.1)
    means = 2 + 4 * torch.eye(4)
    plugin._gaussians = {label: (mean, 0.5 * torch.eye(4)) for label, mean in enumerate(means)}
    plugin._experiences = [[2, 0], [1, 3]]
    head = plugin._align(nn.Linear(4, 4))
    features = (means[:, None] + 0.5 * torch.randn(4, 50, 4)).flatten(0, 1)
    assert (head(features).argmax(1) == torch.arange(4).repeat_interleave(50)).float().mean() > 0.95


def test_what_it_cannot_do_is_refused():
    for options in ({"epochs": 0}, {"ridge": 0.0}, {"alpha": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}=.* must be above 0"):
            SLDC(**options)
