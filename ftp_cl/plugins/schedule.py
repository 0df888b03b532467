"""The learning rate within each experience: linear warm-up, then constant or a cosine to 0; iteration by iteration."""

import math
from collections.abc import Callable
from typing import Any, Literal

from avalanche.core import SupervisedPlugin

from ftp_cl.plugins.ftp import optimizer_of

Schedule = Literal["cosine", "constant"]


def learning_rate_factor(iterations: int, warmup: float, schedule: Schedule) -> Callable[[int], float]:
    """What the learning rate is multiplied by in iteration 0, 1, ..., for torch's `LambdaLR`.

    With w = round(warmup * iterations) it is (i + 1) / w for i < w, and then 1, or (1 + cos(pi p)) / 2 with p the
    share (i - w) / (iterations - w) of the rest that has passed (Loshchilov and Hutter, "SGDR", ICLR 2017, arXiv
    1608.03983, equation 5, without restarts).

    Args:
        iterations: how many there will be.
        warmup: share of them, in [0, 1], in which the rate rises linearly.
        schedule: what follows.

    Raises:
        ValueError: for a share outside [0, 1] or an unknown schedule.
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup={warmup} is no share of the iterations: it must lie in [0, 1].")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"schedule={schedule!r} is unknown; choose 'cosine' or 'constant'.")
    rising = round(warmup * iterations)

    def factor(iteration: int) -> float:
        if iteration < rising:
            return (iteration + 1) / rising
        if schedule == "constant":
            return 1.0
        passed = (iteration - rising) / max(1, iterations - rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))

    return factor


class LearningRateSchedule(SupervisedPlugin[Any]):
    """Runs `learning_rate_factor` over the iterations of each experience, however many it has.

    Avalanche's LRSchedulerPlugin takes one scheduler for all experiences: its length is that of one of them, the first
    iteration from the second experience on is at the full rate (it resets the rate and not the scheduler's factor), and
    SequentialLR comes out wrong. Between experiences the rates are those that the optimizer came with.

    Args:
        warmup: share of an experience's iterations, in [0, 1].
        schedule: "cosine" or "constant".

    Raises:
        ValueError: as `learning_rate_factor`.
    """

    def __init__(self, warmup: float = 0.0, schedule: Schedule = "cosine") -> None:
        super().__init__()
        learning_rate_factor(1, warmup, schedule)  # checks both
        self.warmup = warmup
        self.schedule: Schedule = schedule
        self._base_rates: list[float] = []
        self._iteration = 0
        self._iterations = 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Set the rates of this iteration. In the first one the experience's data loader is final: count it."""
        groups = _groups(strategy)
        if self._iterations == 0:
            self._iterations = len(strategy.dataloader) * strategy.train_epochs
            self._base_rates = [group["lr"] for group in groups]
        factor = learning_rate_factor(self._iterations, self.warmup, self.schedule)(self._iteration)
        for group, rate in zip(groups, self._base_rates, strict=False):
            group["lr"] = rate * factor
        self._iteration += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Back to the base rates."""
        for group, rate in zip(_groups(strategy), self._base_rates, strict=False):
            group["lr"] = rate
        self._base_rates, self._iteration, self._iterations = [], 0, 0


def _groups(strategy: Any) -> list[dict[str, Any]]:
    optimizer = optimizer_of(strategy)
    return [] if optimizer is None else optimizer.param_groups
