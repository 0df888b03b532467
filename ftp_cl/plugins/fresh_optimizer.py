"""Each experience begins with the optimizer as new."""

from typing import Any

from avalanche.core import SupervisedPlugin

from ftp_cl.optim.checks import stepping
from ftp_cl.plugins.ftp import optimizer_of
from ftp_cl.plugins.stages import begins


class FreshOptimizer(SupervisedPlugin[Any]):
    """Clears the optimizer's state (momenta, Adam's moments and step counts) before each experience.

    Avalanche keeps it. Adam's moments of the earlier experience then go on moving the weights of earlier classes, and
    rows of new classes, whose moments are 0 while the step count is not, start with steps three times as large
    (0.1 / sqrt(0.001) of the learning rate, because the bias correction is over). In an online stream it does so at the
    boundaries that the stream shows. Takes the optimizers that `FTP.attach` takes.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Forget the state; parameter groups and learning rates stay."""
        optimizer = optimizer_of(strategy)
        if optimizer is not None and begins(strategy.experience):
            stepping(optimizer).state.clear()
