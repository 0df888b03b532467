"""Training of some parameters of the backbone: the key `train_only`."""

from collections.abc import Sequence

from torch import nn

from ftp_cl.models import ContinualClassifier
from ftp_cl.optim.names import canonical_name, match
from ftp_cl.plugins import find_classifier


def freeze_all_but(patterns: str | Sequence[str], model: nn.Module) -> None:
    """Let nothing of the backbone be trained but the parameters of these names and shell patterns.

    Raises:
        ValueError: one of them matches nothing; names the nearest.
    """
    trained = match(patterns if isinstance(patterns, str) else list(patterns), model, "train_only")
    parts = model.backbone if isinstance(model, ContinualClassifier) else model
    head = set() if isinstance(model, ContinualClassifier) else find_classifier(model)[0]
    prefix = "backbone." if isinstance(model, ContinualClassifier) else ""
    for name, parameter in parts.named_parameters():
        if canonical_name(prefix + name) not in trained and name not in head:
            parameter.requires_grad_(False)
