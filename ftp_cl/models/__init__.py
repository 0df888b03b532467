"""Pretrained backbones with heads for continual learning.

model = pretrained("efficientnet_lite0")          # images: floats in [0, 1], normalised inside the model
strategy = Naive(model=model, optimizer=SGD(model.parameters(), lr=1e-3), ...)
"""

from ftp_cl.models._classifier import ContinualClassifier, Normalization
from ftp_cl.models._heads import HEADS, ClassifierHead, CosineHead, LinearHead
from ftp_cl.models._pretrained import efficientnet_lite0_classifier, pretrained
from ftp_cl.models._registry import MODEL_DESCRIPTIONS, MODELS, build_model
from ftp_cl.models._small_cnn import small_cnn

__all__ = [
    "HEADS",
    "MODELS",
    "MODEL_DESCRIPTIONS",
    "ClassifierHead",
    "ContinualClassifier",
    "CosineHead",
    "LinearHead",
    "Normalization",
    "build_model",
    "efficientnet_lite0_classifier",
    "pretrained",
    "small_cnn",
]
