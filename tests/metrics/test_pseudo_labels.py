"""Share and precision of pseudo-labels."""

import pytest
import torch

from ftp_cl.metrics import pseudo_label_quality


def test_precision_counts_those_that_are_used():
    labels, truth = torch.tensor([1, 2, 3, 3]), torch.tensor([1, 0, 3, 0])
    assert pseudo_label_quality(labels, torch.tensor([True, True, True, False]), truth) == pytest.approx((75, 200 / 3))
    assert pseudo_label_quality(labels, torch.zeros(4), truth) == (0, None)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="3 marks"):
        pseudo_label_quality(torch.zeros(4), torch.zeros(3), torch.zeros(4))
