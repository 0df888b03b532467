"""FTP as a callback of Lightning."""

from typing import Any

from lightning.pytorch import Callback

from ftp_cl.optim import FTP


class FTPCallback(Callback):
    """Attaches FTP to the optimizer of a module, before a checkpoint is loaded.

        trainer = Trainer(callbacks=[FTPCallback(exclude="net.head")])

    FTP's state is part of Lightning's checkpoints, with the optimizer's. A second `fit` of the same module keeps
    the anchor.

    Args:
        options: keyword arguments of `FTP`. Without `exclude`, FTP projects everything that is trained: exclude a new
            classifier, by its name in the LightningModule.

    Attributes:
        ftp: the `FTP`, with `radii()`, `distances()`, `summary()`; None before training.
    """

    def __init__(self, **options: Any) -> None:
        """Take the options."""
        self.ftp: FTP | None = None
        self._options, self._module = options, None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach: the optimizers exist here, and Lightning has not loaded their state yet.

        Raises:
            ValueError: the module has no optimizer, or several.
        """
        if len(trainer.optimizers) != 1:
            raise ValueError(f"FTPCallback needs a module with one optimizer; this one has {len(trainer.optimizers)}.")
        if self.ftp is None or self._module is not pl_module:
            self.ftp, self._module = FTP(pl_module, **self._options), pl_module
        self.ftp.detach()
        self.ftp.attach(trainer.optimizers[0])
