"""Pretrained backbones with heads for continual learning.

>>> model = pretrained("efficientnet_lite0")  # images: floats in [0, 1], normalised inside the model
>>> strategy = Naive(model=model, optimizer=SGD(model.parameters(), lr=1e-3), criterion=CrossEntropyLoss())
"""

from ftp_cl.models.backbones import efficientnet_lite_classifier, pretrained
from ftp_cl.models.continual_classifier import ContinualClassifier, MultiTaskContinualClassifier, Normalization
from ftp_cl.models.ensemble import EnsembleHead, TwoBackbones
from ftp_cl.models.heads import HEADS, ClassifierHead, CosineHead, LinearHead
from ftp_cl.models.linear_discriminant import LinearDiscriminantHead
from ftp_cl.models.lora import add_lora
from ftp_cl.models.preprocessing import Preprocessing
from ftp_cl.models.prototypes import NearestMeanHead, RandomProjectionHead
from ftp_cl.models.small_network import small_cnn
from ftp_cl.models.text import TextEncoder, text_classifier

__all__ = [
    "HEADS",
    "ClassifierHead",
    "ContinualClassifier",
    "CosineHead",
    "EnsembleHead",
    "LinearDiscriminantHead",
    "LinearHead",
    "MultiTaskContinualClassifier",
    "NearestMeanHead",
    "Normalization",
    "Preprocessing",
    "RandomProjectionHead",
    "TextEncoder",
    "TwoBackbones",
    "add_lora",
    "efficientnet_lite_classifier",
    "pretrained",
    "small_cnn",
    "text_classifier",
]
