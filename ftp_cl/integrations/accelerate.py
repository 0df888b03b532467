"""FTP in a loop of accelerate."""

from typing import Any

from torch import nn

from ftp_cl.optim import FTP


def attach_ftp(accelerator: Any, model: nn.Module, optimizer: Any, **options: Any) -> FTP:
    """Attach FTP to what `accelerator.prepare` has returned.

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        ftp = attach_ftp(accelerator, model, optimizer, exclude="head")
        accelerator.load_state(...)  # not before

    Args:
        accelerator: the `Accelerator`.
        model: prepared.
        optimizer: prepared.
        options: keyword arguments of `FTP`.

    Returns:
        The `FTP`, with `radii()`, `distances()`, `summary()`.

    Raises:
        ValueError: DeepSpeed is in use, or as `FTP`.
    """
    if str(accelerator.distributed_type).endswith("DEEPSPEED"):
        raise ValueError("FTP does not work with DeepSpeed, whose optimizers step on flat copies: use FSDP2.")
    return FTP(accelerator.unwrap_model(model), **options).attach(getattr(optimizer, "optimizer", optimizer))
