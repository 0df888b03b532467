"""Joint training, the upper bound of continual learning: all data at once."""

from typing import Any

from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.models.dynamic_modules import avalanche_model_adaptation

from ftp_cl.plugins.skip_training import SkipTraining


class JointTraining(SkipTraining):
    """Trains on the whole stream in its first experience, and not at all in the later ones.

    As Avalanche's strategy of this name, but within the usual loop over experiences: evaluating after each of them
    gives an accuracy matrix with equal rows. The softmax is over all classes, because images of all are there. Epochs
    count passes over the whole stream: as many gradient steps as training one by one takes.
    """

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """All data for the first experience, no epoch for the others."""
        if strategy.experience.current_experience > 0:
            self.skip(strategy)
            return
        # The optimizer must know the parameters before they grow, or it would put the head's into another group.
        strategy.check_model_and_optimizer()
        stream = strategy.experience.origin_stream
        for experience in stream:
            avalanche_model_adaptation(strategy.model, experience)
        strategy.model.to(strategy.device)
        strategy.adapted_dataset = concat_datasets([experience.dataset for experience in stream]).train()
