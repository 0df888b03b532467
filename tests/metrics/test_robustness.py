"""Robustness metrics against hand-worked numbers and an independent least-squares fit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_cl import metrics

inner_percent = st.floats(1, 99)


def test_ood_average_is_the_mean_over_streams():
    assert metrics.ood_average({"ood_blob": 40.0, "ood_line_art": 20.0}) == 30.0
    assert metrics.ood_average({"a": 40.0, "b": 20.0}, sizes={"b": 300, "a": 100}) == 25.0


@pytest.mark.parametrize(
    ("ood", "sizes", "message"),
    [
        ({}, None, "at least one"),
        ({"a": 101.0}, None, "accuracy on a must be percent"),
        ({"a": math.nan}, None, "accuracy on a must be percent"),
        ({"a": 1.0}, {"b": 1.0}, "name the streams"),
        ({"a": 1.0}, {"a": 0.0}, "positive"),
    ],
)
def test_unusable_ood_accuracies_are_refused(ood, sizes, message):
    with pytest.raises(ValueError, match=message):
        metrics.ood_average(ood, sizes)


def test_relative_robustness_is_ood_over_id():
    assert metrics.relative_robustness(30.0, 60.0) == 0.5
    with pytest.raises(ValueError, match="which is 0"):
        metrics.relative_robustness(30.0, 0.0)


def test_mean_corruption_error_hand_worked():
    model = {"fog": [80.0, 60.0], "snow": [50.0, 30.0]}
    reference = {"fog": [60.0, 40.0], "snow": [50.0, 50.0]}
    # fog: (20 + 40) / (40 + 60) = 0.6; snow: (50 + 70) / (50 + 50) = 1.2
    assert metrics.mean_corruption_error(model, reference) == pytest.approx(90.0)
    assert metrics.mean_corruption_error(reference, reference) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("model", "reference", "message"),
    [
        ({}, {}, "same corruptions"),
        ({"fog": [1.0]}, {"snow": [1.0]}, "same corruptions"),
        ({"fog": [1.0]}, {"fog": [1.0, 2.0]}, "same severities of fog"),
        ({"fog": [1.0]}, {"fog": [100.0]}, "no error on fog"),
        ({"fog": [-1.0]}, {"fog": [1.0]}, "accuracy on fog must be percent"),
    ],
)
def test_unusable_corruption_accuracies_are_refused(model, reference, message):
    with pytest.raises(ValueError, match=message):
        metrics.mean_corruption_error(model, reference)


def test_baseline_line_is_the_least_squares_fit_on_logit_axes():
    rng = np.random.default_rng(0)
    id_accuracies, ood_accuracies = rng.uniform(20, 90, 30), rng.uniform(10, 80, 30)
    slope, intercept = np.polyfit(
        np.log(id_accuracies / (100 - id_accuracies)), np.log(ood_accuracies / (100 - ood_accuracies)), 1
    )
    line = metrics.fit_baseline_line(id_accuracies, ood_accuracies)
    assert (line.slope, line.intercept) == (pytest.approx(slope), pytest.approx(intercept))


@given(inner_percent, inner_percent)
def test_a_reference_on_the_diagonal_makes_effective_robustness_the_plain_difference(id_accuracy, ood_accuracy):
    line = metrics.fit_baseline_line([20.0, 50.0, 80.0], [20.0, 50.0, 80.0])
    assert metrics.effective_robustness(ood_accuracy, id_accuracy, line) == pytest.approx(
        ood_accuracy - id_accuracy, abs=1e-6
    )


@given(inner_percent, st.floats(-1, 1), st.floats(0.2, 2))
def test_models_on_the_line_have_no_effective_robustness(id_accuracy, intercept, slope):
    line = metrics.BaselineLine(slope, intercept)
    assert metrics.effective_robustness(line.expected_ood(id_accuracy), id_accuracy, line) == 0


@pytest.mark.parametrize(
    ("id_accuracies", "ood_accuracies", "message"),
    [
        ([50.0], [40.0], "two distinct"),
        ([50.0, 50.0], [40.0, 30.0], "two distinct"),
        ([50.0, 60.0], [40.0], "one length"),
        ([50.0, 100.0], [40.0, 30.0], "strictly between"),
        ([50.0, 60.0], [0.0, 30.0], "strictly between"),
    ],
)
def test_unusable_reference_models_are_refused(id_accuracies, ood_accuracies, message):
    with pytest.raises(ValueError, match=message):
        metrics.fit_baseline_line(id_accuracies, ood_accuracies)
