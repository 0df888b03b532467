"""Metrics of a prediction for each pixel: functions of a confusion matrix, and of angles between normals."""

from collections.abc import Collection, Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_confusion_matrix

ANGLES = (11.25, 22.5, 30.0)
"""Degrees below which the angle to a predicted normal counts as right; Fouhey et al., ICCV 2013, and all since."""

Matrix = NDArray[np.int64]


def confusion_matrix(predicted: Tensor, target: Tensor, n_classes: int, ignored: int = 255) -> Matrix:
    """Count pixels by true class (rows) and predicted class (columns).

    Args:
        predicted: class indices of any shape.
        target: class indices of the same shape, and ``ignored``.
        n_classes: of both.
        ignored: value of pixels that are not counted.

    Returns:
        int64 [n_classes, n_classes].

    Raises:
        ValueError: for shapes that differ, or an index of none of the classes, and not ``ignored``.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"predictions {list(predicted.shape)} and masks {list(target.shape)} differ in shape.")
    counted = target[target != ignored]
    highest = max((int(part.max()) for part in (counted, predicted) if part.numel()), default=0)
    if highest >= n_classes or (counted.numel() and int(counted.min()) < 0):
        raise ValueError(f"there are pixels of class {highest}, and {n_classes} classes.")
    found = multiclass_confusion_matrix(predicted, target, n_classes, ignore_index=ignored, validate_args=False)
    return found.cpu().numpy().astype(np.int64)


def folded(confusion: ArrayLike, seen: Collection[int]) -> Matrix:
    """Count the pixels of classes that were never seen as background, class 0.

    Masks of a test show all classes; a model that has not met some of them is right to call them background, as in
    the field's evaluation of class-incremental segmentation.
    """
    matrix = np.array(confusion, np.int64)
    unseen = [label for label in range(1, len(matrix)) if label not in seen]
    matrix[0] += matrix[unseen].sum(axis=0)
    matrix[unseen] = 0
    return matrix


def iou_per_class(confusion: ArrayLike) -> NDArray[np.float64]:
    """Return the intersection over union of each class, percent, [classes]; NaN where no pixel is or is called so."""
    matrix = np.asarray(confusion, np.float64)
    right = np.diagonal(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    return 100 * np.divide(right, union, out=np.full(len(matrix), np.nan), where=union > 0)


def mean_iou(confusion: ArrayLike, classes: Iterable[int] | None = None) -> float:
    """Return the mean intersection over union, percent; absent classes are left out (torchmetrics' macro average).

    One confusion matrix over all pixels of a data set is meant, as in PASCAL VOC (Everingham et al., IJCV 2010, section
    4.1): a mean over batches or images is another number.

    Args:
        confusion: [classes, classes], true classes in rows.
        classes: which ones; None for all, the background among them. Pixels of others still count as errors.

    Returns:
        NaN if none of the classes is there.
    """
    found = iou_per_class(confusion)
    found = found if classes is None else found[list(classes)]
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def pixel_accuracy(confusion: ArrayLike) -> float:
    """Return the share of pixels that were called by their class, percent; NaN without pixels."""
    matrix = np.asarray(confusion, np.float64)
    return float(100 * np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")


def angular_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the angle between normals at each pixel where the target has one, degrees, [pixels].

    Args:
        predicted: [B, 3, H, W], of any length above 0.
        target: the same shape; zeros where the normal is unknown.
    """
    known = (target != 0).any(dim=1)
    mine, theirs = (normals.movedim(1, -1)[known].double() for normals in (predicted, target))
    cosines = functional.cosine_similarity(mine, theirs, dim=-1).clamp(-1, 1)
    return torch.rad2deg(torch.arccos(cosines))


def angle_summary(errors: ArrayLike, pixels: ArrayLike | None = None) -> dict[str, float]:
    """Return mean and median angle in degrees, and the share within 11.25, 22.5 and 30 degrees in percent.

    Args:
        errors: degrees, [N].
        pixels: how many have each error, whole numbers [N]; None for one each.

    Raises:
        ValueError: without any error.
    """
    found = np.asarray(errors, np.float64)
    counts = np.ones(len(found), np.int64) if pixels is None else np.asarray(pixels)
    if not counts.sum():
        raise ValueError("there is no pixel with a known normal.")
    order = np.argsort(found)
    upto = counts[order].cumsum()
    middle = [found[order][np.searchsorted(upto, rank, side="right")] for rank in ((upto[-1] - 1) // 2, upto[-1] // 2)]
    shares = {f"within_{angle:g}": float(100 * counts[found < angle].sum() / upto[-1]) for angle in ANGLES}
    return {"mean_angle": float(found @ counts / upto[-1]), "median_angle": float(np.mean(middle)), **shares}
