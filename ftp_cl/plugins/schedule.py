"""The learning rate within each experience: linear warm-up, then constant or a cosine to 0; iteration by iteration."""

import math
from collections.abc import Callable
from typing import Any, Literal

from avalanche.core import SupervisedPlugin

from ftp_cl.plugins.ftp import optimizer_of
from ftp_cl.plugins.stages import PartsDone, number_of_parts, refuse_hidden

_BASE_RATE = "rate_without_schedule"
"""Of each parameter group, within an experience; in the group itself, as groups may come, go and change places."""

Schedule = Literal["cosine", "constant", "cosine_per_epoch"]


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
    SequentialLR comes out wrong. Between experiences the rates are those that the optimizer came with. The parts in
    which an online stream shows an experience are taken to be equally long, whatever the last one is.

    Args:
        warmup: share of an experience's iterations, in [0, 1].
        schedule: "cosine", "constant", or "cosine_per_epoch": the cosine goes down after each epoch, as torch's
            `CosineAnnealingLR` stepped once an epoch does, and warm-up goes up so.

    Raises:
        ValueError: as `learning_rate_factor`; when training starts, in an online stream that shows no boundaries.
    """

    def __init__(self, warmup: float = 0.0, schedule: Schedule = "cosine") -> None:
        super().__init__()
        self._shape = "cosine" if schedule == "cosine_per_epoch" else schedule
        learning_rate_factor(1, warmup, self._shape)  # checks both
        self.warmup = warmup
        self.schedule: Schedule = schedule
        self._iteration = 0
        self._iterations = 0
        self._parts = PartsDone()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """See which part of an experience this is; an interrupted training counts no more."""
        refuse_hidden(strategy.experience, "LearningRateSchedule")
        self._parts.begin(strategy.experience)
        self._iteration = self._iterations = 0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Set the rates of this iteration. In the first one the experience's data loader is final: count it."""
        if self._iterations == 0:
            self._iterations = len(strategy.dataloader) * strategy.train_epochs
        in_all = self._iterations * number_of_parts(strategy.experience)
        done = self._iterations * self._parts.count + self._iteration
        if self.schedule == "cosine_per_epoch":
            in_all, done = in_all // len(strategy.dataloader), done // len(strategy.dataloader)
        factor = learning_rate_factor(in_all, self.warmup, self._shape)(done)
        for group in _groups(strategy):
            group["lr"] = group.setdefault(_BASE_RATE, group["lr"]) * factor
        self._iteration += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Back to the base rates."""
        for group in _groups(strategy):
            group["lr"] = group.pop(_BASE_RATE, group["lr"])
        self._parts.end(strategy.experience)


def _groups(strategy: Any) -> list[dict[str, Any]]:
    optimizer = optimizer_of(strategy)
    return [] if optimizer is None else optimizer.param_groups
