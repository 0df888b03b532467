"""LP-FT: the head alone, then everything."""

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

from ftp_cl.plugins.anchor import not_excluded
from ftp_cl.plugins.stages import begins, number_of_parts, refuse_hidden


class HeadFirst(SupervisedPlugin[Any]):
    """Trains the head alone for the first epochs of each experience, then the whole model.

    LP-FT: Kumar, Raghunathan, Jones, Ma, Liang, "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022, arXiv 2202.10054, section 3.4. Linear probing to the end and a second training with
    a rate of its own are one training here, with as many epochs as other methods have; give the backbone its rate in
    its own parameter group. A schedule that runs over the whole experience runs over both parts: with a cosine to 0 the
    backbone begins, at half of the epochs, with half of its rate.

    Args:
        share: of an experience's epochs, in [0, 1], rounded: in them the backbone is frozen. Where an online stream
            shows an experience in parts, the epochs of all parts count.

    Raises:
        ValueError: for a share outside [0, 1]; at the first experience, if the model has no classifier, or too few
            epochs for the head to have one of its own, or the stream is online and shows no boundaries.
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
        refuse_hidden(strategy.experience, "HeadFirst")
        if begins(strategy.experience):
            self._epoch = 0
        if self.share and strategy.train_epochs and not self._epochs_of_head(strategy):
            epochs = strategy.train_epochs * number_of_parts(strategy.experience)
            raise ValueError(
                f"share={self.share} of {epochs} epochs is none: LP-FT needs at least one epoch for the head alone."
            )

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze at first, thaw when it is time. What the user had frozen stays so."""
        if self._epoch >= self._epochs_of_head(strategy):
            self._thaw(strategy.model)
        elif not self._frozen:
            backbone = {weight for weight in not_excluded(strategy.model, "head").values() if weight.requires_grad}
            self._frozen = [name for name, parameter in strategy.model.named_parameters() if parameter in backbone]
            self._set_trainable(strategy.model, False)
        self._epoch += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Leave nothing frozen, if all epochs were the head's."""
        self._thaw(strategy.model)

    def _epochs_of_head(self, strategy: Any) -> int:
        return round(self.share * (strategy.train_epochs * number_of_parts(strategy.experience)))

    def _thaw(self, model: nn.Module) -> None:
        self._set_trainable(model, True)
        self._frozen = []

    def _set_trainable(self, model: nn.Module, trainable: bool) -> None:
        for name in self._frozen:
            model.get_parameter(name).requires_grad_(trainable)
