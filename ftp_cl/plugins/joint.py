"""Joint training, the upper bound of continual learning: all data at once."""

from collections.abc import Sequence
from typing import Any

from avalanche.models.dynamic_modules import avalanche_model_adaptation

from ftp_cl.plugins.last_model import LastModel
from ftp_cl.plugins.skip_training import SkipTraining
from ftp_cl.plugins.stages import joined, refuse_parts


class JointTraining(SkipTraining):
    """Trains on the whole stream in the first experience that is trained, and not at all in the later ones.

    As Avalanche's strategy of this name, but within the usual loop over experiences: evaluating after each of them
    gives an accuracy matrix with equal rows. The softmax is over all classes, because images of all are there. Epochs
    count passes over the whole stream: as many gradient steps as training one by one takes. With another model than
    before, the plugin begins anew.

    Raises:
        ValueError: when training starts, in an online stream, which does not hold all its images at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_model = LastModel()
        self._is_trained = False
        self._is_now = False

    def experiences_trained_on(self, strategy: Any) -> Sequence[Any]:
        """All of the stream, or none; see `ftp_cl.plugins.stages`."""
        return list(strategy.experience.origin_stream) if self._is_now else []

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """See whether this is the experience in which all is trained."""
        refuse_parts(strategy.experience, "JointTraining")
        if self._last_model.changes_to(strategy.model):
            self._is_trained = False
        self._is_now = not self._is_trained

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """All data once, no epoch afterwards."""
        if not self._is_now:
            self.skip(strategy)
            return
        # The optimizer must know the parameters before they grow, or it would put the head's into another group.
        strategy.check_model_and_optimizer()
        experiences = self.experiences_trained_on(strategy)
        for experience in experiences:
            avalanche_model_adaptation(strategy.model, experience)
        strategy.model.to(strategy.device)
        strategy.adapted_dataset = joined(experiences).train()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Now the stream is trained; other plugins may still ask in this hook what it was."""
        super().after_training_exp(strategy, **kwargs)
        self._is_trained = True

    def state_dict(self) -> dict[str, Any]:
        """Whether the stream is trained."""
        return {"is_trained": self._is_trained}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take over what `state_dict` gave."""
        self._last_model = LastModel()
        self._is_trained = state["is_trained"]
