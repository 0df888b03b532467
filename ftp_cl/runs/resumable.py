"""Training that can be cut off after any iteration and goes on from there: the strategy and its batches."""

from collections.abc import Iterator
from typing import Any

from avalanche.training import Naive
from avalanche.training.templates import SupervisedTemplate

from ftp_cl.runs.checkpoints import Checkpoints, Position

_END = object()


class Batches:
    """The batches of one experience, epoch by epoch, each drawn with the loaders' own random states.

    Attributes:
        epoch: of the next iteration over it.
    """

    def __init__(self, checkpoints: Checkpoints, strategy: SupervisedTemplate, loader: Any) -> None:
        self._checkpoints, self._strategy, self._loader = checkpoints, strategy, loader
        start = checkpoints.resumed or Position(0)
        self.is_resumed, self.epoch, self._skipped = start.epoch is not None, start.epoch or 0, start.batch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        checkpoints, strategy = self._checkpoints, self._strategy
        number, epoch = checkpoints.number, self.epoch
        at_start = checkpoints.randomness.state
        iterator, done = iter(self._loader), 0
        while self._skipped:
            with checkpoints.refusing_misfits():
                if self._next(iterator) is _END:
                    raise ValueError(f"it is behind batch {done}, the last one of the epoch")
            done, self._skipped = done + 1, self._skipped - 1
            if not self._skipped:
                checkpoints.restore(strategy)
        # From here until the experience is saved, an end must wait for a checkpoint. Between two iterations there may
        # be much work without a position in it: what methods do after an epoch, or after the experience.
        checkpoints.termination.waits = True
        while (batch := self._next(iterator)) is not _END:
            yield batch
            done += 1
            checkpoints.iteration_done(strategy, Position(number, epoch, done), at_start)

    def _next(self, iterator: Iterator[Any]) -> Any:
        with self._checkpoints.randomness.use():
            return next(iterator, _END)


class ResumableTraining:
    """What lets a strategy's training begin in the middle of an experience: stands before its class.

    Attributes:
        checkpoints: set before training.
    """

    checkpoints: Checkpoints
    dataloader: Any
    train_epochs: Any
    training_epoch: Any
    _before_training_epoch: Any
    _after_training_epoch: Any
    _stop_training: Any

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        """As Avalanche's, but for the first epoch and the batches."""
        batches = self.dataloader = Batches(self.checkpoints, self, self.dataloader)
        for epoch in range(batches.epoch, self.train_epochs):
            if not (batches.is_resumed and epoch == batches.epoch):
                self._before_training_epoch(**kwargs)
            batches.epoch, batches.is_resumed = epoch, False
            if self._stop_training:
                self._stop_training = False
                break
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)


class ResumableNaive(ResumableTraining, Naive):
    """Fine-tuning, experience by experience."""


def resumable(kind: type[SupervisedTemplate]) -> type[SupervisedTemplate]:
    """The class of a user's strategy, made resumable within experiences if its training loop is Avalanche's.

    A loop of its own may go through the batches in any way, so that no position in it can be told: such a class
    comes back as it is.
    """
    loops = ("_train_exp", "training_epoch")
    if any(getattr(kind, loop) is not getattr(SupervisedTemplate, loop) for loop in loops):
        return kind
    return type(kind.__name__, (ResumableTraining, kind), {})
