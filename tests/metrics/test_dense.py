"""Metrics of pixels against torchmetrics, scikit-learn and values worked out by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as sklearn_confusion
from torchmetrics.classification import MulticlassJaccardIndex

from ftp_cl.metrics.dense import (
    angle_summary,
    angular_errors,
    confusion_matrix,
    folded,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
)
from ftp_cl.metrics.mask_record import MaskRecord


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (4, 9, 7), generator=generator)
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.5, target, 4 - target)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return predicted, target


def test_counts_are_scikit_learns_without_ignored_pixels(pixels):
    predicted, target = pixels
    kept = target != 255
    expected = sklearn_confusion(target[kept].numpy(), predicted[kept].numpy(), labels=range(6))
    np.testing.assert_array_equal(confusion_matrix(predicted, target, 6), expected)


def test_mean_iou_over_all_batches_is_torchmetrics_and_leaves_absent_classes_out(pixels):
    predicted, target = pixels
    theirs = MulticlassJaccardIndex(7, average="macro", ignore_index=255)
    counts = np.zeros((7, 7), np.int64)
    for one, other in zip(predicted.split(1), target.split(1), strict=True):
        theirs.update(one, other)
        counts += confusion_matrix(one, other, 7)
    assert mean_iou(counts) == pytest.approx(100 * float(theirs.compute()), rel=1e-6)
    assert np.isnan(iou_per_class(counts)[5:]).all()
    assert mean_iou(counts, [5]) != mean_iou(counts, [5]), "NaN"


def test_iou_and_pixel_accuracy_by_hand():
    counts = [[3, 1, 0], [2, 4, 0], [0, 0, 0]]
    np.testing.assert_allclose(iou_per_class(counts)[:2], [100 * 3 / 6, 100 * 4 / 7])
    assert mean_iou(counts, [1, 2]) == pytest.approx(100 * 4 / 7)
    assert pixel_accuracy(counts) == pytest.approx(70)


def test_classes_never_seen_are_background():
    target, predicted = torch.tensor([0, 1, 2, 3, 2]), torch.tensor([0, 1, 0, 0, 1])
    seen = folded(confusion_matrix(predicted, target, 4), {0, 1})
    expected = confusion_matrix(predicted, torch.tensor([0, 1, 0, 0, 0]), 4)
    np.testing.assert_array_equal(seen, expected)


def test_a_mask_with_another_class_than_there_are_is_refused():
    with pytest.raises(ValueError, match="pixels of class 7, and 4 classes"):
        confusion_matrix(torch.zeros(3, dtype=torch.long), torch.tensor([0, 7, 1]), 4)


def test_angles_are_those_between_the_vectors_where_the_target_is_known():
    target = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]).T.reshape(1, 3, 2, 2)
    predicted = torch.tensor([[2.0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, -1]]).T.reshape(1, 3, 2, 2)
    found = angular_errors(predicted, target)
    np.testing.assert_allclose(found.numpy(), [0, 45, 180], atol=1e-5)
    summary = angle_summary(found)
    assert summary == pytest.approx(
        {"mean_angle": 75, "median_angle": 45, "within_11.25": 100 / 3, "within_22.5": 100 / 3, "within_30": 100 / 3}
    )


def test_angles_may_be_counted():
    errors = np.random.default_rng(0).integers(0, 60, 1001)
    values, pixels = np.unique(errors, return_counts=True)
    summary = angle_summary(values, pixels)
    assert summary == pytest.approx(angle_summary(errors))
    for angle in (11.25, 22.5, 30):
        assert summary[f"within_{angle:g}"] == pytest.approx(100 * np.mean(errors < angle)), "30 is not within 30"
    assert (summary["mean_angle"], summary["median_angle"]) == pytest.approx((errors.mean(), np.median(errors)))


def test_small_angles_are_exact():
    angle = math.radians(0.01)
    target = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).double()
    predicted = torch.tensor([math.cos(angle), math.sin(angle), 0], dtype=torch.float64).view(1, 3, 1, 1)
    np.testing.assert_allclose(angular_errors(predicted, target).numpy(), [0.01], rtol=1e-5)


class Stream(list):
    name = "test"


def test_the_image_with_most_pixels_of_a_class_is_found_by_its_place():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 50, (2, 6, 4))
    pixels[:, :, 3] = 0
    stream, record = Stream(), MaskRecord()
    for number in range(2):
        about = {"current_experience": number, "classes_in_this_experience": [0], "dataset": object()}
        stream.append(SimpleNamespace(origin_stream=stream, **about))
    for number in range(2):
        record.start(stream[number], 4)
        for batch in (pixels[number, :4], pixels[number, 4:]):
            record.add(stream[number], np.zeros((4, 4), np.int64), batch)
    expected = {c: tuple(map(int, np.argwhere(pixels[:, :, c] == pixels[:, :, c].max())[0])) for c in range(3)}
    assert record.richest("test") == expected and record.richest("ood_fog_3") == {}
