"""Training of some parameters of the backbone: the key `train_only`."""

from collections.abc import Sequence

from torch import nn

from ftp_cl.optim.names import canonical_name, match
from ftp_cl.runs.optimizer import head_names


def freeze_all_but(patterns: str | Sequence[str], model: nn.Module) -> None:
    """Let nothing of the backbone be trained but the parameters of these names and shell patterns.

    Raises:
        ValueError: one of them matches nothing; names the nearest.
    """
    trained = match(patterns if isinstance(patterns, str) else list(patterns), model, "train_only")
    head = head_names(model)
    for name, parameter in model.named_parameters():
        if name not in head and canonical_name(name) not in trained:
            parameter.requires_grad_(False)
