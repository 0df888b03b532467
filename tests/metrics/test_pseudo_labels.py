"""Share and precision of pseudo-labels."""

import numpy as np
import pytest

from ftp_cl.metrics import pseudo_label_quality


def test_precision_counts_those_that_are_used():
    labels, truth = np.array([1, 2, 3, 3]), np.array([1, 0, 3, 0])
    assert pseudo_label_quality(labels, np.array([True, True, True, False]), truth) == pytest.approx((75, 200 / 3))
    assert pseudo_label_quality(labels, np.zeros(4), truth) == (0, None)


def test_without_true_labels_there_is_a_share_only():
    assert pseudo_label_quality(np.array([1, 2]), np.array([True, False]), None) == (50, None)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="3 marks"):
        pseudo_label_quality(np.zeros(4), np.zeros(3), np.zeros(4))
