"""LP-FT: the head alone, then everything."""

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

from ftp_cl.plugins.anchor import anchored_weights


class HeadFirst(SupervisedPlugin[Any]):
    """Trains the head alone for the first epochs of each experience, then the whole model.

    LP-FT: Kumar, Raghunathan, Jones, Ma, Liang, "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022, arXiv 2202.10054, section 3.4. Linear probing to the end and a second training with
    a rate of its own are one training here, with as many epochs as other methods have; give the backbone its rate in
    its own parameter group. A schedule that runs over the whole experience runs over both parts: with a cosine to 0 the
    backbone begins, at half of the epochs, with half of its rate.

    Args:
        share: of an experience's epochs, in [0, 1], rounded: in them the backbone is frozen.

    Raises:
        ValueError: for a share outside [0, 1]; at the first experience, if the model has no classifier, or too few
            epochs for the head to have one of its own.
    """

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share={share} of the epochs lies outside [0, 1].")
        self.share = share
        self._frozen: list[str] = []
        self._epoch = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin with the backbone as it is."""
        self._epoch = 0
        if self.share and not round(self.share * strategy.train_epochs):
            raise ValueError(
                f"share={self.share} of {strategy.train_epochs} epochs is none: LP-FT needs at least one epoch for the "
                "head alone."
            )

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze at first, thaw when it is time. What the user had frozen stays so."""
        if self._epoch == 0:
            backbone = set(anchored_weights(strategy.model, "head").values())
            self._frozen = [name for name, parameter in strategy.model.named_parameters() if parameter in backbone]
            self._set_trainable(strategy.model, False)
        if self._epoch == round(self.share * strategy.train_epochs):
            self._thaw(strategy.model)
        self._epoch += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave nothing frozen, if all epochs were the head's."""
        self._thaw(strategy.model)

    def _thaw(self, model: nn.Module) -> None:
        self._set_trainable(model, True)
        self._frozen = []

    def _set_trainable(self, model: nn.Module, trainable: bool) -> None:
        for name in self._frozen:
            model.get_parameter(name).requires_grad_(trainable)
