"""Keeps normalisation layers' running statistics as pretraining left them."""

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ftp_cl.plugins.classifier import find_classifier


def freeze_batch_norm(model: nn.Module) -> None:
    """Put all layers with running statistics (BatchNorm, SyncBatchNorm, InstanceNorm) into evaluation mode.

    They normalise with their running mean and variance and leave these as they are; scale and shift stay trainable.
    `model.train()` undoes it.
    """
    for module in model.modules():
        if _has_running_statistics(module):
            module.eval()


class FreezeBatchNorm(SupervisedPlugin[Any], supports_distributed=True):  # type: ignore[call-arg]
    """Trains with the running statistics that the model came with; those of its classifier's layers are trained.

    What starts from random weights, the decoder of a segmentation model say, came with mean 0 and variance 1.

    A stream's small tasks overwrite the statistics of pretraining: with them in training mode, fine-tuning EfficientNet
    on a class-incremental stream of small drawings ended below a linear probe, whatever else was done.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handles: list[Any] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """From now on until training ends, each such layer goes into evaluation mode before every pass.

        Not at each iteration: evaluation during training puts all layers back into training mode, and so do plugins
        that make passes of their own (MAS for its importances, GEM and AGEM for their reference gradients).
        """
        self._release()
        try:
            classifier = find_classifier(strategy.model)[0]
        except ValueError:  # it has none
            classifier = set()
        owners = {name.rpartition(".")[0] for name in classifier}
        pretrained = (module for name, module in strategy.model.named_modules() if name not in owners)
        layers = [module for module in pretrained if _has_running_statistics(module)]
        self._handles = [layer.register_forward_pre_hook(_into_evaluation_mode) for layer in layers]

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the layers; hooks do not travel with a saved model."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Nothing that the next experience or a resumed one would not set up again."""
        return {}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Nothing to do."""

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _has_running_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.track_running_stats


def _into_evaluation_mode(module: nn.Module, inputs: Any) -> None:
    module.eval()
