"""Robustness to shifted inputs as pure functions of in-distribution (ID) and out-of-distribution (OOD) accuracies.

Accuracies are percent, differences percentage points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ood_average(ood: Mapping[str, float], sizes: Mapping[str, float] | None = None) -> float:
    """Mean accuracy over the OOD streams.

    Args:
        ood: accuracy of each stream, percent; at least one stream.
        sizes: weight of each stream, such as its number of samples; default: all the same.

    Returns:
        Percent.

    Raises:
        ValueError: no stream, an accuracy outside 0 to 100, or sizes that do not name the same streams.
    """
    if not ood:
        raise ValueError("the OOD average needs the accuracy of at least one OOD stream")
    accuracies = [_percent(accuracy, f"the accuracy on {stream}") for stream, accuracy in ood.items()]
    if sizes is None:
        return float(np.mean(accuracies))
    if set(sizes) != set(ood):
        raise ValueError(f"sizes must name the streams {sorted(ood)}, but name {sorted(sizes)}")
    weights = np.array([sizes[stream] for stream in ood], dtype=np.float64)
    if not np.all(np.isfinite(weights) & (weights > 0)):
        raise ValueError(f"sizes must be positive numbers, but are {weights.tolist()}")
    return float(np.average(accuracies, weights=weights))


def relative_robustness(ood_accuracy: float, id_accuracy: float) -> float:
    """OOD accuracy over ID accuracy: the share of the accuracy that survives the shift.

    Not to be confused with the "relative robustness" of Taori et al. (2020), a difference between two models' OOD
    accuracies.

    Args:
        ood_accuracy: percent.
        id_accuracy: percent, above 0.

    Returns:
        A ratio: 1 when nothing is lost.

    Raises:
        ValueError: an accuracy outside 0 to 100, or an ID accuracy of 0, for which the ratio does not exist.
    """
    ood, in_distribution = _percent(ood_accuracy, "the OOD accuracy"), _percent(id_accuracy, "the ID accuracy")
    if in_distribution == 0:
        raise ValueError("relative robustness divides by the ID accuracy, which is 0")
    return ood / in_distribution


def mean_corruption_error(accuracy: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]]) -> float:
    """Mean corruption error (mCE): error on each corruption relative to a stated reference model, then averaged.

    CE_c = (sum over severities of the model's error) / (the same of the reference); mCE is the mean over corruptions.
    The reference makes corruptions of unlike difficulty comparable. Hendrycks and Dietterich use AlexNet; state which
    one was used wherever the number is given.

    Args:
        accuracy: accuracies of the model on each corruption, one per severity, percent.
        reference: the same of the reference model: same corruptions, same severities in the same order.

    Returns:
        Percent: 100 equals the reference, lower is better.

    Raises:
        ValueError: corruptions or severities that differ, an accuracy outside 0 to 100, or a corruption on which the
            reference makes no error.

    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR 2019, arXiv 1903.12261.
    """
    if not accuracy or set(accuracy) != set(reference):
        raise ValueError(
            f"model and reference must have the same corruptions, but have {sorted(accuracy)} and {sorted(reference)}"
        )
    ratios = []
    for corruption in accuracy:
        model_error = _summed_error(accuracy[corruption], corruption)
        reference_error = _summed_error(reference[corruption], f"{corruption} (reference)")
        if len(accuracy[corruption]) != len(reference[corruption]):
            raise ValueError(
                f"model and reference must have the same severities of {corruption}, "
                f"but have {len(accuracy[corruption])} and {len(reference[corruption])}"
            )
        if reference_error == 0:
            raise ValueError(f"the reference makes no error on {corruption}, so no error can be relative to it")
        ratios.append(model_error / reference_error)
    return float(100 * np.mean(ratios))


@dataclass(frozen=True)
class BaselineLine:
    """A line through the reference models on logit axes: logit(OOD) = slope * logit(ID) + intercept."""

    slope: float
    intercept: float

    def expected_ood(self, id_accuracy: float) -> float:
        """OOD accuracy, percent, that the line expects at an ID accuracy in percent, strictly between 0 and 100."""
        expected = self.slope * _logit(np.array([id_accuracy]), "the ID accuracy") + self.intercept
        return float(100 / (1 + np.exp(-expected[0])))


def fit_baseline_line(id_accuracies: ArrayLike, ood_accuracies: ArrayLike) -> BaselineLine:
    """Fit the line that reference models without a robustness intervention lie on, by least squares on logit axes.

    Args:
        id_accuracies: one per reference model, percent, strictly between 0 and 100.
        ood_accuracies: the same models' OOD accuracies, in the same order.

    Returns:
        The line.

    Raises:
        ValueError: lengths that differ, fewer than two distinct ID accuracies, or an accuracy of 0 or 100 or outside,
            where the logit is infinite.

    Source:
        Taori et al., "Measuring Robustness to Natural Distribution Shifts in Image Classification", NeurIPS 2020,
        arXiv 2007.00644: beta, a linear fit after a logit transform of both axes.
    """
    x = _logit(np.asarray(id_accuracies, dtype=np.float64), "the ID accuracies")
    y = _logit(np.asarray(ood_accuracies, dtype=np.float64), "the OOD accuracies")
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"ID and OOD accuracies must be two lists of one length, but have shapes {x.shape}, {y.shape}")
    if len(np.unique(x)) < 2:
        raise ValueError("a baseline line needs reference models with at least two distinct ID accuracies")
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))
    return BaselineLine(slope, float(y.mean() - slope * x.mean()))


def effective_robustness(ood_accuracy: float, id_accuracy: float, baseline: BaselineLine) -> float:
    """OOD accuracy beyond what a baseline line expects at that ID accuracy: rho = OOD - beta(ID).

    Args:
        ood_accuracy: percent.
        id_accuracy: percent, strictly between 0 and 100.
        baseline: from `fit_baseline_line` on reference runs.

    Returns:
        Percentage points; positive means more robust than the reference models.

    Raises:
        ValueError: an accuracy outside its range.

    Source:
        Taori et al., "Measuring Robustness to Natural Distribution Shifts in Image Classification", NeurIPS 2020,
        arXiv 2007.00644: rho = acc_2 - beta(acc_1).
    """
    return _percent(ood_accuracy, "the OOD accuracy") - baseline.expected_ood(id_accuracy)


def _percent(value: float, name: str) -> float:
    number = float(value)
    if not 0 <= number <= 100 + 1e-4:  # float32 accuracies may exceed 100 by rounding
        raise ValueError(f"{name} must be percent, 0 to 100, but is {number:g}")
    return number


def _summed_error(accuracies: Sequence[float], corruption: str) -> float:
    return sum(max(0.0, 100 - _percent(accuracy, f"the accuracy on {corruption}")) for accuracy in accuracies)


def _logit(accuracies: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    if not np.all((accuracies > 0) & (accuracies < 100)):
        raise ValueError(f"{name} must be strictly between 0 and 100 percent, where the logit is finite")
    return np.log(accuracies / (100 - accuracies))
