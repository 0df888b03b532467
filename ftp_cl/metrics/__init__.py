"""Metrics of continual learning, robustness and calibration: pure functions, in percent, and Avalanche plugins on them.

Nothing but the plugins imports Avalanche.
"""

from typing import TYPE_CHECKING, Any

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
from ftp_cl.metrics.calibration import calibration_gaps, expected_calibration_error
from ftp_cl.metrics.distance import distance_from_anchor
from ftp_cl.metrics.evaluation_record import EvaluationRecord
from ftp_cl.metrics.pseudo_labels import pseudo_label_quality
from ftp_cl.metrics.robustness import (
    BaselineLine,
    effective_robustness,
    fit_baseline_line,
    mean_corruption_error,
    ood_average,
    relative_robustness,
)
from ftp_cl.metrics.summary import summarize

if TYPE_CHECKING:
    from ftp_cl.metrics.plugins import ContinualMetrics, DistanceFromAnchor

__all__ = [
    "BaselineLine",
    "ContinualMetrics",
    "DistanceFromAnchor",
    "EvaluationRecord",
    "accuracy_after_each_experience",
    "average_accuracy",
    "average_forgetting",
    "average_incremental_accuracy",
    "backward_transfer",
    "calibration_gaps",
    "distance_from_anchor",
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
    "pseudo_label_quality",
    "relative_robustness",
    "stepwise_forgetting",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in ("ContinualMetrics", "DistanceFromAnchor"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Importing Avalanche takes seconds, which readers of result files need not wait.
    from ftp_cl.metrics import plugins

    return getattr(plugins, name)
