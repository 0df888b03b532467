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
    is_ours = isinstance(model, ContinualClassifier)
    for name, parameter in model.named_parameters():
        in_head = name.startswith("head.") if is_ours else name in find_classifier(model)[0]
        if not in_head and canonical_name(name) not in trained:
            parameter.requires_grad_(False)
