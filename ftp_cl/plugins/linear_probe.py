"""Linear probing: the head alone is trained."""

from typing import Any

from avalanche.core import SupervisedPlugin

from ftp_cl.models import ContinualClassifier


class LinearProbe(SupervisedPlugin[Any]):
    """Freezes the backbone, so that it stays as pretrained. The lower bound of what adapting it must gain."""

    def prepare_model(self, model: ContinualClassifier) -> None:
        """Freeze it before an optimizer is made."""
        model.backbone.requires_grad_(False)

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze it where nobody has called `prepare_model`."""
        self.prepare_model(strategy.model)
