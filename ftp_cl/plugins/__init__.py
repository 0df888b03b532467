"""Avalanche plugins: FTPPlugin, and what it is used and compared with."""

from ftp_cl.plugins.agem import AGEM
from ftp_cl.plugins.anchor import AnchoredPlugin
from ftp_cl.plugins.anchor_methods import (
    AnchoredStepPlugin,
    AnchorPenalty,
    FixedRadiusPlugin,
    SPDPlugin,
    TPGMPlugin,
    WiSEFT,
)
from ftp_cl.plugins.aper import APER
from ftp_cl.plugins.classifier import find_classifier
from ftp_cl.plugins.classifier_alignment import ClassifierAlignment
from ftp_cl.plugins.dark_experience import DarkExperienceReplay
from ftp_cl.plugins.digrap import DiGraPPlugin
from ftp_cl.plugins.distillation import FeatureDistillation
from ftp_cl.plugins.freeze_batch_norm import FreezeBatchNorm, freeze_batch_norm
from ftp_cl.plugins.fresh_optimizer import FreshOptimizer
from ftp_cl.plugins.ftp import FTPPlugin
from ftp_cl.plugins.gem import GEM
from ftp_cl.plugins.head_first import HeadFirst
from ftp_cl.plugins.joint import JointTraining
from ftp_cl.plugins.lda_ensemble import LDAEnsemble
from ftp_cl.plugins.linear_probe import LinearProbe
from ftp_cl.plugins.prototypes import FrozenLDA, PrototypeClassifier
from ftp_cl.plugins.schedule import LearningRateSchedule
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
from ftp_cl.plugins.sldc import SLDC
from ftp_cl.plugins.synaptic_intelligence import SynapticIntelligence

__all__ = [
    "AGEM",
    "APER",
    "GEM",
    "SLDC",
    "AnchorPenalty",
    "AnchoredPlugin",
    "AnchoredStepPlugin",
    "ClassifierAlignment",
    "DarkExperienceReplay",
    "DiGraPPlugin",
    "FTPPlugin",
    "FeatureDistillation",
    "FixMatch",
    "FixedRadiusPlugin",
    "FlexMatch",
    "FreeMatch",
    "FreezeBatchNorm",
    "FreshOptimizer",
    "FrozenLDA",
    "HeadFirst",
    "JointTraining",
    "LDAEnsemble",
    "LearningRateSchedule",
    "LinearProbe",
    "MeanTeacher",
    "PrototypeClassifier",
    "PseudoLabel",
    "SPDPlugin",
    "SemiSupervisedPlugin",
    "SeparatedCriterion",
    "SeparatedSoftmax",
    "StrongView",
    "SynapticIntelligence",
    "TPGMPlugin",
    "WeakView",
    "WiSEFT",
    "find_classifier",
    "freeze_batch_norm",
]
