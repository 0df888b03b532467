"""Keeps normalisation layers' running statistics as pretraining left them."""

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def freeze_batch_norm(model: nn.Module) -> None:
    """Put all layers with running statistics (BatchNorm, SyncBatchNorm, InstanceNorm) into evaluation mode.

    They normalise with their running mean and variance and leave these as they are; scale and shift stay trainable.
    `model.train()` undoes it.
    """
    for module in model.modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            module.eval()


class FreezeBatchNorm(SupervisedPlugin[Any], supports_distributed=True):  # type: ignore[call-arg]
    """Trains with the running statistics that the model came with.

    A stream's small tasks overwrite the statistics of pretraining: with them in training mode, fine-tuning EfficientNet
    on a class-incremental stream of small drawings ended below a linear probe, whatever else was done.
    """

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Renewed at every iteration, because evaluation during training puts all layers back into training mode."""
        freeze_batch_norm(strategy.model)
