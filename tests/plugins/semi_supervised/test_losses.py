"""Losses, thresholds and ramps against numbers worked out by hand from the papers' formulas."""

import math

import pytest
import torch
from torch import nn

from ftp_cl.plugins.semi_supervised import (
    AdaptiveThresholds,
    FlexibleThresholds,
    WeightAverage,
    consistency_loss,
    fairness_loss,
    linear_ramp,
    pseudo_label_loss,
    sigmoid_ramp,
)


def logits_of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def close(actual, expected):
    torch.testing.assert_close(torch.as_tensor(actual).double(), torch.as_tensor(expected).double())


def test_pseudo_label_loss_is_divided_by_the_whole_batch():
    logits = logits_of([0.8, 0.2], [0.5, 0.5], [0.1, 0.9])
    labels = torch.tensor([0, 0, 0])
    close(
        pseudo_label_loss(logits, labels, torch.tensor([1, 1, 1])), -(math.log(0.8) + math.log(0.5) + math.log(0.1)) / 3
    )
    close(pseudo_label_loss(logits, labels, torch.tensor([True, False, False])), -math.log(0.8) / 3)
    close(pseudo_label_loss(logits, labels, torch.zeros(3)), 0.0)


def test_consistency_loss_is_the_mean_over_images_and_classes_and_the_teacher_gets_no_gradient():
    student = logits_of([0.8, 0.2], [0.5, 0.5]).requires_grad_()
    teacher = logits_of([0.6, 0.4], [0.5, 0.5]).requires_grad_()
    loss = consistency_loss(student, teacher)
    close(loss, (0.2**2 + 0.2**2) / 4)
    loss.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_fairness_loss_is_minus_the_cross_entropy_of_the_two_balanced_means():
    # Three strong views are used: predictions 0, 0, 1; mean probability (0.6, 0.4); histogram (2/3, 1/3).
    logits = logits_of([0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.99, 0.01])
    used = torch.tensor([True, True, True, False])
    mean, share = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64)
    target = (0.5 / 0.2 / (0.5 / 0.2 + 0.5 / 0.8), 0.5 / 0.8 / (0.5 / 0.2 + 0.5 / 0.8))  # (0.8, 0.2)
    ratios = (0.6 / (2 / 3), 0.4 / (1 / 3))  # 0.9, 1.2
    prediction = (ratios[0] / sum(ratios), ratios[1] / sum(ratios))
    assert target == pytest.approx((0.8, 0.2)) and prediction == pytest.approx((3 / 7, 4 / 7))
    close(fairness_loss(logits, used, mean, share), 0.8 * math.log(3 / 7) + 0.2 * math.log(4 / 7))


def test_fairness_loss_without_used_views_is_zero_and_a_class_never_predicted_is_left_out():
    logits = logits_of([0.8, 0.2])
    mean = share = torch.tensor([0.5, 0.5], dtype=torch.float64)
    close(fairness_loss(logits, torch.tensor([False]), mean, share), 0.0)
    # The histogram lacks class 1, so its balanced mean is (1, 0): log(0 + 1e-12) for the other half.
    close(fairness_loss(logits, torch.tensor([True]), mean, share), 0.5 * math.log(1e-12) + 0.5 * math.log(1 + 1e-12))


def test_flexmatch_thresholds_follow_the_counts():
    thresholds = FlexibleThresholds(n_items=10, n_classes=3, threshold=0.95)
    close(thresholds.thresholds(), [0.0, 0.0, 0.0])
    probabilities = torch.tensor([[0.96, 0.03, 0.01], [0.97, 0.02, 0.01], [0.02, 0.96, 0.02], [0.4, 0.3, 0.3]])
    assert thresholds.accept(probabilities, torch.tensor([4, 5, 6, 7])).all(), "all pass while nothing is learned"
    assert thresholds.labels.tolist() == [-1, -1, -1, -1, 0, 0, 1, -1, -1, -1]
    # Counts 2, 1, 0 and 7 not yet sure: beta = 2/7, 1/7, 0; beta / (2 - beta) = 1/6, 1/13, 0.
    close(thresholds.thresholds(), [0.95 / 6, 0.95 / 13, 0.0])
    # When most are learned, the class most learned is the measure: counts 6, 3, 0; beta = 1, 1/2, 0.
    thresholds.labels = torch.tensor([0] * 6 + [1] * 3 + [-1])
    close(thresholds.thresholds(), [0.95, 0.95 / 3, 0.0])
    assert thresholds.accept(probabilities, torch.tensor([0, 1, 2, 3])).tolist() == [True, True, True, False]


def test_freematch_thresholds_follow_the_mean_confidence():
    thresholds = AdaptiveThresholds(n_classes=2, momentum=0.9)
    close(thresholds.thresholds(), [0.5, 0.5])
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.52, 0.48]])
    passed = thresholds.accept(probabilities)
    tau = 0.9 * 0.5 + 0.1 * (0.9 + 0.6 + 0.52) / 3
    mean = [0.9 * 0.5 + 0.1 * 2.02 / 3, 0.9 * 0.5 + 0.1 * 0.98 / 3]
    close(thresholds.confidence, tau)
    close(thresholds.mean_probability, mean)
    close(thresholds.label_share, [0.9 * 0.5 + 0.1, 0.9 * 0.5])
    close(thresholds.thresholds(), [tau, mean[1] / mean[0] * tau])
    assert tau == pytest.approx(0.51733, abs=1e-5) and passed.tolist() == [True, True, True]
    assert thresholds.accept(torch.tensor([[0.51, 0.49]])).tolist() == [False]


def test_ramps():
    assert [linear_ramp(t, 0.1, 0.6) for t in (0, 0.1, 0.35, 0.6, 1)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [sigmoid_ramp(t, 0.5) for t in (0, 0.25, 0.5, 1)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])


def test_weight_average_is_a_mean_at_first_and_exponential_then():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.6)
    seen = []
    for value in (1.0, 2.0, 6.0, 11.0):
        model.weight.data.fill_(value)
        average.update(model)
        seen.append(next(average.model.parameters()).item())
    # Means of 1; 1, 2; then 1 - 1/3 is above the decay: 0.6 * 1.5 + 0.4 * 6 = 3.3, 0.6 * 3.3 + 0.4 * 11 = 6.38.
    assert seen == pytest.approx([1.0, 1.5, 3.3, 6.38])
    average.swap(model)
    assert model.weight.item() == pytest.approx(6.38) and next(average.model.parameters()).item() == 11
