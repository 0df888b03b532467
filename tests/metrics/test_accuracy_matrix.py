"""Metrics of the accuracy matrix against hand-worked matrices, and properties that hold for every matrix."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ftp_cl import metrics

NAN = math.nan
#            test: 1     2     3
WORKED = [
    [80.0, NAN, None],  # after experience 1
    [90.0, 60.0, NAN],  # after experience 2
    [50.0, 40.0, 70.0],  # after experience 3
]
FULL = [[80.0, 10.0, 20.0], [90.0, 60.0, 30.0], [50.0, 40.0, 70.0]]
SIZES = [10, 30, 60]

# f_1 = max(80, 90) - 50 = 40, f_2 = 60 - 40 = 20
HAND_WORKED = [
    (metrics.average_accuracy, (50 + 40 + 70) / 3, (500 + 1200 + 4200) / 100),
    (metrics.average_incremental_accuracy, (80 + 75 + 160 / 3) / 3, (80 + (900 + 1800) / 40 + 59) / 3),
    (metrics.learning_accuracy, (80 + 60 + 70) / 3, (800 + 1800 + 4200) / 100),
    (metrics.average_forgetting, 30.0, (400 + 600) / 40),
    # step 2: 80 - 90 = -10; step 3: mean(90 - 50, 60 - 40) = 30 (weighted (400 + 600) / 40 = 25)
    (metrics.stepwise_forgetting, (-10 + 30) / 2, (-10 + 25) / 2),
    # 50 - 80 = -30, 40 - 60 = -20
    (metrics.backward_transfer, -25.0, (-300 - 600) / 40),
]


@pytest.mark.parametrize(("metric", "expected", "weighted"), HAND_WORKED)
def test_hand_worked_matrix(metric, expected, weighted):
    assert metric(WORKED) == pytest.approx(expected)
    assert metric(WORKED, sizes=SIZES) == pytest.approx(weighted)


def test_vectors_of_the_hand_worked_matrix():
    assert metrics.accuracy_after_each_experience(WORKED) == pytest.approx([80, 75, 160 / 3])
    assert metrics.forgetting_per_experience(WORKED) == pytest.approx([40, 20])


def test_forward_transfer_is_accuracy_before_training_minus_the_baseline():
    # a_12 - b_2 = 10 - 5, a_23 - b_3 = 30 - 4
    assert metrics.forward_transfer(FULL, baseline=[0, 5, 4]) == pytest.approx((5 + 26) / 2)
    assert metrics.forward_transfer(FULL, baseline=[NAN, 5, 4]) == pytest.approx((5 + 26) / 2)  # the first is not read
    assert metrics.forward_transfer(FULL, [0, 5, 4], sizes=SIZES) == pytest.approx((30 * 5 + 60 * 26) / 90)


def test_intransigence_is_the_joint_reference_minus_the_diagonal():
    assert metrics.intransigence_per_experience(WORKED, joint=[82, 75, 65]) == pytest.approx([2, 15, -5])
    assert metrics.intransigence(WORKED, joint=[82, 75, 65]) == pytest.approx(4)
    assert metrics.intransigence(WORKED, [82, 75, 65], sizes=SIZES) == pytest.approx((20 + 450 - 300) / 100)


def test_maximum_of_forgetting_includes_accuracies_before_training_where_known():
    assert metrics.forgetting_per_experience([[50, 90, NAN], [50, 60, NAN], [50, 60, 70]]) == pytest.approx([0, 30])


def test_forgetting_is_negative_when_the_last_experience_helps():
    assert metrics.average_forgetting([[50, NAN], [60, 70]]) == pytest.approx(-10)


def test_stepwise_forgetting_equals_the_published_loop():
    matrix = np.random.default_rng(0).uniform(0, 100, (7, 7))
    total = 0.0
    for t in range(1, 7):
        for i in range(t):
            total += (matrix[t - 1, i] - matrix[t, i]) / t
    assert metrics.stepwise_forgetting(matrix) == pytest.approx(total / 6)


def test_one_experience_has_accuracies_but_no_forgetting():
    assert metrics.average_accuracy([[42.0]]) == metrics.learning_accuracy([[42.0]]) == 42.0
    for metric in (metrics.average_forgetting, metrics.stepwise_forgetting, metrics.backward_transfer):
        with pytest.raises(ValueError, match="at least 2 experiences"):
            metric([[42.0]])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 2.0]], "square"),
        ([], "square"),
        ([[]], "square"),
        ([[1.0, 2.0], [3.0]], "T rows of T numbers"),
        ([["a"]], "T rows of T numbers"),
        ([[101.0]], "percent"),
        ([[-1.0]], "percent"),
        ([[math.inf]], "percent"),
        ([[50.0, 0.0], [NAN, 60.0]], "experience 1 after training on experience 2 is missing"),
        ([[50.0, 0.0], [40.0, None]], "experience 2 after training on experience 2 is missing"),
    ],
)
def test_unusable_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        metrics.average_incremental_accuracy(matrix)


def test_only_the_entries_that_a_formula_reads_are_required():
    last_row_only = [[NAN, NAN], [50.0, 60.0]]
    assert metrics.average_accuracy(last_row_only) == 55.0
    with pytest.raises(ValueError, match="backward transfer needs it"):
        metrics.backward_transfer(last_row_only)
    assert metrics.forward_transfer([[NAN, 30.0], [NAN, NAN]], [0, 10]) == 20.0


@pytest.mark.parametrize("sizes", [[1, 2], [1, 2, 0], [1, 2, -1], [1, 2, NAN], [[1, 2, 3]]])
def test_unusable_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must"):
        metrics.average_accuracy(WORKED, sizes=sizes)


@pytest.mark.parametrize("vector", [[1, 2], [1, 2, 101], [1, 2, NAN]])
def test_unusable_reference_vectors_are_refused(vector):
    with pytest.raises(ValueError, match="baseline must"):
        metrics.forward_transfer(FULL, vector)
    with pytest.raises(ValueError, match="joint must"):
        metrics.intransigence(FULL, vector)


matrices = st.integers(2, 6).flatmap(lambda t: hnp.arrays(np.float64, (t, t), elements=st.floats(0, 100)))


@given(matrices)
def test_maximum_based_forgetting_is_at_least_minus_backward_transfer(matrix):
    assert metrics.average_forgetting(matrix) >= -metrics.backward_transfer(matrix) - 1e-9


@given(matrices, st.floats(0.5, 1000))
def test_equal_sizes_change_nothing(matrix, size):
    sizes = np.full(len(matrix), size)
    for metric, *_ in HAND_WORKED:
        assert metric(matrix, sizes) == pytest.approx(metric(matrix), abs=1e-9)


@given(st.integers(2, 6), st.floats(0, 100))
def test_constant_accuracy_is_neither_forgotten_nor_transferred(t, accuracy):
    matrix = np.full((t, t), accuracy)
    assert metrics.average_incremental_accuracy(matrix) == pytest.approx(accuracy)
    for metric in (metrics.average_forgetting, metrics.stepwise_forgetting, metrics.backward_transfer):
        assert metric(matrix) == 0


@given(matrices)
def test_both_definitions_of_forgetting_agree_on_two_experiences(matrix):
    matrix = matrix[:2, :2]
    assert metrics.stepwise_forgetting(matrix) == pytest.approx(metrics.average_forgetting(matrix), abs=1e-9)


@given(matrices)
def test_metrics_of_past_experiences_ignore_the_entries_above_the_diagonal_but_for_the_maximum(matrix):
    masked = np.where(np.triu(np.ones_like(matrix), k=1) > 0, np.nan, matrix)
    for metric, *_ in HAND_WORKED:
        if metric is metrics.average_forgetting:
            assert metric(masked) <= metric(matrix) + 1e-9
        else:
            assert metric(masked) == metric(matrix)


@given(matrices)
def test_sizes_that_count_samples_give_the_accuracy_over_all_samples(matrix):
    correct, sizes = np.floor(matrix[-1]), np.arange(1, len(matrix) + 1) * 100
    matrix[-1] = correct
    hits = correct / 100 * sizes
    assert metrics.average_accuracy(matrix, sizes) == pytest.approx(100 * hits.sum() / sizes.sum())


# Trained on 1, 2, 3 and 1 again: four rows, three columns.
AGAIN = [[90.0, 10.0, 0.0], [60.0, 80.0, 5.0], [30.0, 50.0, 100.0], [95.0, 20.0, 40.0]]


@pytest.mark.parametrize(
    ("metric", "expected", "weighted"),
    [
        (metrics.average_accuracy, 155 / 3, (950 + 600 + 2400) / 100),
        (metrics.average_incremental_accuracy, (90 + 70 + 60 + 155 / 3) / 4, (90 + 75 + 78 + 39.5) / 4),
        (metrics.learning_accuracy, 90.0, (900 + 2400 + 6000) / 100),
        # 90 - 95, 80 - 20, 100 - 40: the first is trained on before the end, too
        (metrics.average_forgetting, 115 / 3, (-50 + 1800 + 3600) / 100),
        (metrics.stepwise_forgetting, (30 + 30 + 25 / 3) / 3, (30 + 30 + (-650 + 900 + 3600) / 100) / 3),
        (metrics.backward_transfer, -115 / 3, (50 - 1800 - 3600) / 100),
    ],
)
def test_training_on_an_experience_again_adds_a_row_and_moves_no_first_row(metric, expected, weighted):
    assert metric(AGAIN, first_rows=[0, 1, 2]) == pytest.approx(expected)
    assert metric(AGAIN, SIZES, [0, 1, 2]) == pytest.approx(weighted)
    unseen = [[*row, 50.0] for row in AGAIN]  # an experience that is never trained on counts nowhere
    assert metric(unseen, [*SIZES, 0], [0, 1, 2, None]) == pytest.approx(weighted)


@given(matrices, st.randoms(use_true_random=False))
def test_columns_in_another_order_give_the_same_numbers(matrix, random):
    order = random.sample(range(len(matrix)), len(matrix))
    reference = np.arange(len(matrix))
    for metric, *_ in HAND_WORKED:
        assert metric(matrix[:, order], first_rows=order) == pytest.approx(metric(matrix), abs=1e-9)
    for metric in (metrics.forward_transfer, metrics.intransigence):
        there = metric(matrix[:, order], reference[order], first_rows=order)
        assert there == pytest.approx(metric(matrix, reference), abs=1e-9)


def test_one_test_experience_for_all_trainings_shows_what_later_trainings_did_to_it():
    rows = [[50.0], [70.0], [60.0]]
    values = [metric(rows, first_rows=[0]) for metric, *_ in HAND_WORKED]
    assert values == pytest.approx([60, 60, 50, 70 - 60, (-20 + 10) / 2, 60 - 50])


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 4], [0, 1, -1], [0, 1, 0.5], [None, None, None]])
def test_unusable_first_rows_are_refused(rows):
    with pytest.raises(ValueError, match=r"first_rows must|none of the test experiences"):
        metrics.average_accuracy(AGAIN, first_rows=rows)
