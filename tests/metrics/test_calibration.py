"""Expected calibration error against torchmetrics, hand-worked bins, and perfect calibration."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from ftp_cl.metrics import expected_calibration_error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_agrees_with_torchmetrics(bins):
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(3 * torch.randn(500, 7, generator=generator, dtype=torch.float64), dim=1)
    targets = torch.randint(7, (500,), generator=generator)
    expected = multiclass_calibration_error(probabilities, targets, num_classes=7, n_bins=bins, norm="l1")
    # torchmetrics computes in float32.
    assert expected_calibration_error(probabilities, targets, bins) == pytest.approx(100 * expected.item(), abs=1e-4)


def test_hand_worked_bins():
    # two bins: {0.2, 0.4}, one of two right, mean confidence 0.3; {0.9, 1.0}, one of two right, mean confidence 0.95
    confidences, right = [0.2, 0.4, 0.9, 1.0], np.array([True, False, True, False])
    assert expected_calibration_error(confidences, right, bins=2) == pytest.approx(100 * (0.5 * 0.2 + 0.5 * 0.45))


def test_probabilities_and_their_confidences_give_the_same():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 100)
    targets = rng.integers(0, 4, 100)
    right = probabilities.argmax(axis=1) == targets
    assert expected_calibration_error(probabilities, targets) == expected_calibration_error(
        probabilities.max(axis=1), right
    )


def test_extremes():
    assert expected_calibration_error([1.0, 1.0], np.array([True, True])) == 0
    assert expected_calibration_error([1.0, 1.0], np.array([False, False])) == 100
    assert expected_calibration_error([0.0], np.array([False])) == 0


@pytest.mark.parametrize(
    ("probabilities", "targets", "bins", "message"),
    [
        ([[0.5, 0.5]], [0], 0, "bins must be at least 1"),
        ([[0.5, 0.5]], [0, 1], 15, "shape"),
        ([], [], 15, "shape"),
        ([[2.0, -1.0]], [0], 15, "softmax"),
        ([[0.5, 0.2]], [0], 15, "sum to 1"),
        ([[0.5, 0.5]], [2], 15, "class indices from 0 to 1"),
        ([[0.5, 0.5]], [-1], 15, "class indices"),
        ([[0.5, 0.5]], [0.0], 15, "class indices"),
        ([0.5], [1], 15, "booleans"),
    ],
)
def test_unusable_input_is_refused(probabilities, targets, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, targets, bins)
