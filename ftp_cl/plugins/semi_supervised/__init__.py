"""Training on few labelled images and many unlabelled ones: plugins, and the losses and thresholds behind them."""

from ftp_cl.plugins.semi_supervised.base import PseudoLabels, SemiSupervisedPlugin, UnlabelledLoss
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch
from ftp_cl.plugins.semi_supervised.fixmatch import FixMatch
from ftp_cl.plugins.semi_supervised.flexmatch import FlexMatch
from ftp_cl.plugins.semi_supervised.freematch import FreeMatch
from ftp_cl.plugins.semi_supervised.losses import (
    consistency_loss,
    fairness_loss,
    linear_ramp,
    pseudo_label_loss,
    sigmoid_ramp,
)
from ftp_cl.plugins.semi_supervised.mean_teacher import MeanTeacher
from ftp_cl.plugins.semi_supervised.pseudo_label import PseudoLabel
from ftp_cl.plugins.semi_supervised.thresholds import AdaptiveThresholds, FlexibleThresholds
from ftp_cl.plugins.semi_supervised.views import StrongView, WeakView
from ftp_cl.plugins.semi_supervised.weight_average import WeightAverage

__all__ = [
    "AdaptiveThresholds",
    "FixMatch",
    "FlexMatch",
    "FlexibleThresholds",
    "FreeMatch",
    "MeanTeacher",
    "PseudoLabel",
    "PseudoLabels",
    "SemiSupervisedPlugin",
    "StrongView",
    "UnlabelledBatch",
    "UnlabelledLoss",
    "WeakView",
    "WeightAverage",
    "consistency_loss",
    "fairness_loss",
    "linear_ramp",
    "pseudo_label_loss",
    "sigmoid_ramp",
]
