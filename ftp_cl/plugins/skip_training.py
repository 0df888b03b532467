"""Base of methods that do not train on every experience."""

from typing import Any

from avalanche.core import SupervisedPlugin


class SkipTraining(SupervisedPlugin[Any]):
    """Lets a method pass over an experience's epochs: all other hooks run, and `train_epochs` comes back afterwards.

    A method calls `skip` before the epochs; before `before_training_exp`, if others are to see it there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epochs: int | None = None

    def skip(self, strategy: Any) -> None:
        """Train for no epoch in this experience."""
        if strategy.train_epochs:  # another method may have skipped already, and gives them back
            self._epochs, strategy.train_epochs = strategy.train_epochs, 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave the strategy as it was."""
        if self._epochs is not None:
            strategy.train_epochs, self._epochs = self._epochs, None
