"""Fits a linear discriminant head to each experience, without gradients."""

from typing import Any

from avalanche.core import SupervisedPlugin

from ftp_cl.models import ContinualClassifier, LinearDiscriminantHead
from ftp_cl.models.imprinting import class_features


class LinearDiscriminantPlugin(SupervisedPlugin[Any]):
    """Frozen features and linear discriminant analysis: for a strategy with `train_epochs=0`.

    Replaces the model's head by a `LinearDiscriminantHead` and, before each experience, takes in the features of its
    training images (evaluation transforms, one pass).

    Args:
        shrinkage: of the covariance, in [0, 1].

    Raises:
        TypeError: at the first experience, if the model is no `ContinualClassifier`.
    """

    def __init__(self, shrinkage: float = 0.5) -> None:
        super().__init__()
        self.shrinkage = shrinkage

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Put the head in place before Avalanche adapts it."""
        model = strategy.model
        if not isinstance(model, ContinualClassifier):
            raise TypeError(f"LinearDiscriminantPlugin needs a ContinualClassifier, not {type(model).__name__}.")
        if not isinstance(model.head, LinearDiscriminantHead):
            model.head = LinearDiscriminantHead(model.num_features, self.shrinkage).to(strategy.device)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Take in this experience."""
        model, experience = strategy.model, strategy.experience
        classes = set(experience.classes_in_this_experience)
        found = class_features(model, model.features, experience.dataset.eval(), classes)
        if found is not None:
            model.head.update(*found)
