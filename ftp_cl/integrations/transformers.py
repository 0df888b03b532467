"""FTP in transformers' Trainer, TRL's SFTTrainer and what else is derived from them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ftp_cl.optim import FTP
from ftp_cl.optim.checkpoints import STATE_KEY

logger = logging.getLogger(__name__)


class FTPTrainerMixin:
    """Puts FTP behind the optimizer of a Trainer, before a checkpoint is loaded.

        class FTPTrainer(FTPTrainerMixin, Trainer): ...

        trainer = FTPTrainer(model=model, args=args, train_dataset=data, ftp_options={"exclude": "classifier"})

    FTP's state is part of the Trainer's checkpoints, with the optimizer's. With a peft model, FTP bounds the adapters'
    changes (docs/lora.md). docs/trainers.md says what works with FSDP, resuming and `load_best_model_at_end`.

    Args:
        ftp_options: keyword arguments of `FTP`. None: its defaults, with which FTP projects everything that is
            trained: exclude a new classifier.
        args, kwargs: the Trainer's own.

    Attributes:
        ftp: the `FTP`, with `radii()`, `distances()`, `summary()`; None before training.
    """

    ftp: FTP | None = None
    _ftp_model: Any = None

    def __init__(self, *args: Any, ftp_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Make the Trainer."""
        self._ftp_options = dict(ftp_options or {})
        super().__init__(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's optimizer, or the one that it was given, with FTP attached.

        A second `train()` continues with the radii of the first, unless `model_init` makes a new model.

        Raises:
            ValueError: DeepSpeed is in use.
        """
        trainer: Any = self
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if trainer.is_deepspeed_enabled:
            raise ValueError("FTP does not work with DeepSpeed, whose optimizers step on flat copies: use FSDP2.")
        if self.ftp is None or self._ftp_model is not trainer.model:
            self.ftp, self._ftp_model = FTP(trainer.model, **self._ftp_options), trainer.model
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper, from the second train() on
        if not self.ftp.is_attached_to(inner):
            self.ftp.detach()
            self.ftp.attach(inner)
        return optimizer

    def _load_best_model(self) -> None:
        """With `load_best_model_at_end`, radii go back with the weights."""
        trainer: Any = self
        super()._load_best_model()  # type: ignore[misc]
        path = Path(trainer.state.best_model_checkpoint) / "optimizer.pt"
        saved = torch.load(path, "cpu", weights_only=True, mmap=True) if path.is_file() else {}
        if self.ftp is None or STATE_KEY not in saved:
            logger.warning("%s is without FTP's state: radii stay those of the last step.", path.parent)
        else:
            self.ftp.load_state_dict(saved[STATE_KEY])
