"""Avalanche plugins: FTPPlugin, and what it is used and compared with."""

from ftp_cl.plugins.classifier import find_classifier
from ftp_cl.plugins.freeze_batch_norm import FreezeBatchNorm, freeze_batch_norm
from ftp_cl.plugins.fresh_optimizer import FreshOptimizer
from ftp_cl.plugins.ftp import FTPPlugin
from ftp_cl.plugins.linear_discriminant import LinearDiscriminantPlugin
from ftp_cl.plugins.semi_supervised import (
    FixMatch,
    FlexMatch,
    FreeMatch,
    MeanTeacher,
    PseudoLabel,
    SemiSupervisedPlugin,
    StrongView,
    WeakView,
)
from ftp_cl.plugins.separated_softmax import SeparatedCriterion, SeparatedSoftmax

__all__ = [
    "FTPPlugin",
    "FixMatch",
    "FlexMatch",
    "FreeMatch",
    "FreezeBatchNorm",
    "FreshOptimizer",
    "LinearDiscriminantPlugin",
    "MeanTeacher",
    "PseudoLabel",
    "SemiSupervisedPlugin",
    "SeparatedCriterion",
    "SeparatedSoftmax",
    "StrongView",
    "WeakView",
    "find_classifier",
    "freeze_batch_norm",
]
