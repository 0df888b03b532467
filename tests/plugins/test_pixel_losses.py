"""Losses over pixels against sums written out in NumPy, and what a strategy trains with them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.training.plugins import AGEMPlugin, GEMPlugin, ReplayPlugin
from torch import nn

from ftp_cl.models.dense import DenseModel, MaskHead
from ftp_cl.plugins.pixel_loss import NormalLoss, PixelCrossEntropy
from ftp_cl.plugins.unbiased_segmentation import (
    UnbiasedSegmentation,
    begin_as_background,
    plain_distillation,
    unbiased_distillation,
)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 5, (2, 3, 4), generator=generator)
    targets[0, 0, :2] = 255
    return logits, targets


def probabilities(logits):
    powers = np.exp(logits.numpy())
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_loss_is_the_mean_over_counted_pixels(batch):
    logits, targets = batch
    expected = nn.CrossEntropyLoss(ignore_index=255)(logits, targets)
    torch.testing.assert_close(PixelCrossEntropy()(logits, targets), expected)
    assert PixelCrossEntropy()(logits, torch.full_like(targets, 255)) == 0


def test_the_loss_of_normals_is_over_known_pixels():
    target = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]]).T.reshape(1, 3, 1, 3)
    predicted = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]]).T.reshape(1, 3, 1, 3)
    assert float(NormalLoss()(predicted, target)) == pytest.approx(2 / 6)
    assert NormalLoss()(predicted, torch.zeros(1, 3, 1, 3)) == 0


def test_training_goes_on_after_a_validation_in_inference_mode(batch):
    logits, targets = batch
    criterion = PixelCrossEntropy()
    criterion.left_out = [1, 2]
    with torch.inference_mode():
        criterion(logits, targets)
    weights = logits.detach().clone().requires_grad_()
    criterion(weights, targets).backward()
    assert weights.grad is not None


def test_classes_left_out_are_compared_with_nothing_and_get_no_gradient(batch):
    logits, targets = batch[0].clone().requires_grad_(), batch[1].masked_fill(batch[1].clamp_max(9) == 3, 0)
    targets[(targets == 4)] = 2
    criterion = PixelCrossEntropy()
    criterion.left_out = [3, 4]
    loss = criterion(logits, targets)
    torch.testing.assert_close(loss, nn.CrossEntropyLoss(ignore_index=255)(logits[:, :3], targets))
    loss.backward()
    assert (logits.grad[:, 3:] == 0).all() and (logits.grad[:, :3] != 0).any()


def test_targets_of_classes_that_the_model_does_not_know_are_background(batch):
    logits, targets = batch
    expected = PixelCrossEntropy()(logits[:, :3], targets.masked_fill((targets > 2) & (targets != 255), 0))
    torch.testing.assert_close(PixelCrossEntropy()(logits[:, :3], targets), expected)


def test_whole_masks_are_read_as_those_of_training(batch):
    logits, targets = batch
    logits[:, 3] = -1000  # as the head has it for a class that was not trained
    kept = torch.tensor([0, 0, 1, 0, 2, *range(5, 256)])[targets]
    criterion = PixelCrossEntropy()
    criterion.left_out = [1]
    expected = nn.CrossEntropyLoss(ignore_index=255)(logits[:, [0, 2, 4]], kept)
    torch.testing.assert_close(criterion(logits, targets), expected)
    criterion.left_out, criterion.in_background = [], [1, 2]
    of_training = targets.masked_fill((targets == 1) | (targets == 2), 0)
    assert criterion(logits, targets) == criterion(logits, of_training)


def test_unbiased_cross_entropy_adds_earlier_classes_to_the_background(batch):
    logits, targets = batch
    targets = targets.masked_fill((targets == 1) | (targets == 2), 0)
    criterion = PixelCrossEntropy()
    criterion.in_background = [1, 2]
    p = probabilities(logits)
    terms = [
        -np.log(p[b, :3, y, x].sum() if targets[b, y, x] == 0 else p[b, targets[b, y, x], y, x])
        for b, y, x in np.ndindex(2, 3, 4) if targets[b, y, x] != 255
    ]  # fmt: skip
    assert float(criterion(logits, targets)) == pytest.approx(np.mean(terms))


def test_unbiased_distillation_adds_new_classes_to_the_background(batch):
    logits, before = batch[0], batch[0].flip(0) * 2
    p, q = probabilities(logits), probabilities(before[:, :3])
    terms = [
        -(q[b, 0, y, x] * np.log(p[b, 0, y, x] + p[b, 3, y, x] + p[b, 4, y, x])
          + sum(q[b, c, y, x] * np.log(p[b, c, y, x]) for c in (1, 2)))
        for b, y, x in np.ndindex(2, 3, 4)
    ]  # fmt: skip
    assert float(unbiased_distillation(logits, before, [1, 2], [3, 4])) == pytest.approx(np.mean(terms))


def test_plain_distillation_is_among_background_and_earlier_classes_alone(batch):
    logits, before = batch[0].clone().requires_grad_(), batch[0].flip(0) * 2
    p, q = probabilities(logits.detach()[:, :3]), probabilities(before[:, :3])
    loss = plain_distillation(logits, before, [1, 2], [3, 4])
    assert loss.item() == pytest.approx(-(q * np.log(p)).sum(axis=1).mean())
    loss.backward()
    assert (logits.grad[:, 3:] == 0).all() and logits.grad[:, :3].isfinite().all() and logits.grad[:, 0].any()


def test_plain_distillation_leaves_cross_entropy_and_head_as_they_are():
    head = MaskHead(3)
    head.activate([0, 1])
    model = DenseModel(head, nn.Identity(), "masks", 1)
    experience = SimpleNamespace(current_experience=1, classes_in_this_experience=[2, 3])
    head.activate([2, 3])
    weight, criterion = head.classifier.weight.clone(), PixelCrossEntropy()
    criterion.left_out = [1]
    strategy = SimpleNamespace(model=model, plugins=[], experience=experience, _criterion=criterion)
    UnbiasedSegmentation(unbiased=False).before_training_exp(strategy)
    assert torch.equal(head.classifier.weight, weight)
    assert (criterion.left_out, criterion.in_background) == ([1], [])


def test_the_distillation_is_averaged_over_the_classes_of_the_earlier_model(batch):
    logits, before = batch[0], batch[0].flip(0) * 2
    plugin = UnbiasedSegmentation(strength=6)
    plugin.teacher, plugin._earlier = (lambda images: before), [1, 2]
    model = SimpleNamespace(known_classes=[0, 1, 2, 3, 4])
    strategy = SimpleNamespace(model=model, mb_x=None, mb_output=logits, loss=torch.tensor(1.0).double())
    plugin.before_backward(strategy)
    expected = 1 + 6 / 3 * float(unbiased_distillation(logits, before, [1, 2], [3, 4]))
    assert float(strategy.loss) == pytest.approx(expected)


def test_new_classes_share_the_backgrounds_probability_and_others_keep_theirs():
    head = MaskHead(3)
    head.activate([0, 1])
    maps = torch.rand(1, 3, 2, 2)
    before = head(maps).softmax(dim=1)
    head.activate([2, 3])
    begin_as_background(head, [2, 3])
    after = head(maps).softmax(dim=1)
    torch.testing.assert_close(after[:, 1], before[:, 1])
    for label in (0, 2, 3):
        torch.testing.assert_close(after[:, label], before[:, 0] / 3)


@pytest.mark.parametrize("plugin", [ReplayPlugin(10), GEMPlugin(10, 0.5), AGEMPlugin(10, 10)])
def test_replayed_masks_are_refused_beside_mib(plugin):
    strategy = SimpleNamespace(model=DenseModel(MaskHead(3), nn.Identity(), "masks", 1), plugins=[plugin])
    with pytest.raises(ValueError, match=f"masks that {type(plugin).__name__} replays as background"):
        UnbiasedSegmentation().before_training_exp(strategy)
