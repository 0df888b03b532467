"""Metrics of continual learning, robustness and calibration: pure functions of accuracies, in percent."""

from ftp_cl.metrics.accuracy_matrix import (
    accuracy_after_each_experience,
    average_accuracy,
    average_forgetting,
    average_incremental_accuracy,
    backward_transfer,
    forgetting_per_experience,
    forward_transfer,
    intransigence,
    intransigence_per_experience,
    learning_accuracy,
    stepwise_forgetting,
)
from ftp_cl.metrics.calibration import expected_calibration_error
from ftp_cl.metrics.robustness import (
    BaselineLine,
    effective_robustness,
    fit_baseline_line,
    mean_corruption_error,
    ood_average,
    relative_robustness,
)
from ftp_cl.metrics.summary import summarize

__all__ = [
    "BaselineLine",
    "accuracy_after_each_experience",
    "average_accuracy",
    "average_forgetting",
    "average_incremental_accuracy",
    "backward_transfer",
    "effective_robustness",
    "expected_calibration_error",
    "fit_baseline_line",
    "forgetting_per_experience",
    "forward_transfer",
    "intransigence",
    "intransigence_per_experience",
    "learning_accuracy",
    "mean_corruption_error",
    "ood_average",
    "relative_robustness",
    "stepwise_forgetting",
    "summarize",
]
