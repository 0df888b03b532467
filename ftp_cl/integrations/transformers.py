"""FTP in transformers' Trainer, TRL's SFTTrainer and what else is derived from them."""

from collections.abc import Mapping
from typing import Any

from ftp_cl.optim import FTP


class FTPTrainerMixin:
    """Puts FTP behind the optimizer of a Trainer, before a checkpoint is loaded.

        class FTPTrainer(FTPTrainerMixin, Trainer): ...

        trainer = FTPTrainer(model=model, args=args, train_dataset=data, ftp_options={"exclude": "classifier"})

    FTP's state is in the checkpoints that the Trainer writes, with its optimizer's.

    Attributes:
        ftp: the `FTP`, with `radii()`, `distances()`, `summary()`; None before training.
    """

    ftp: FTP | None = None

    def __init__(self, *args: Any, ftp_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Make the Trainer; `ftp_options` are those of `FTP`, the rest is the Trainer's."""
        self._ftp_options = dict(ftp_options or {})
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's optimizer, or the one that it was given, with FTP attached.

        Raises:
            ValueError: DeepSpeed is in use.
        """
        trainer: Any = self
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self.ftp is None:  # a second train() goes on with the first one's
            if trainer.is_deepspeed_enabled:
                raise ValueError("FTP does not work with DeepSpeed, whose optimizers step on flat copies: use FSDP2.")
            self.ftp = FTP(trainer.model, **self._ftp_options).attach(optimizer)
        return optimizer
