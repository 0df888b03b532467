"""Training that can be cut off after any iteration and goes on from there: the strategy and its batches."""

from collections.abc import Iterator
from typing import Any

import torch
from avalanche.training import Naive
from avalanche.training.templates import SupervisedTemplate

from ftp_cl.plugins.processes import count, share
from ftp_cl.runs.checkpoints import Checkpoints, Position
from ftp_cl.runs.engine import Engine
from ftp_cl.runs.group import same_weights
from ftp_cl.runs.workers import WorkerLoader

_END = object()
_Loop: Any = object  # Avalanche's template comes behind it


class Batches:
    """The batches of one experience, epoch by epoch, each drawn with the loaders' own random states.

    Args:
        checkpoints: of the run.
        strategy: that is trained.
        loader: of the experience.
        workers: processes that load; 0: this one.

    Attributes:
        epoch: of the next iteration over it.
        size: of the batch that was given last; of several processes each is given its share.
    """

    def __init__(self, checkpoints: Checkpoints, strategy: SupervisedTemplate, loader: Any, workers: int = 0) -> None:
        self._checkpoints, self._strategy = checkpoints, strategy
        self._loader = WorkerLoader(loader, workers, strategy.device.type == "cuda") if workers else loader
        self.size = 0
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
            strategy.engine.is_in_iteration = True
            yield self._share(batch)
            strategy.engine.is_in_iteration = False
            done += 1
            checkpoints.iteration_done(strategy, Position(number, epoch, done), at_start)

    def _share(self, batch: Any) -> Any:
        """What this process trains on; at least one image."""
        if isinstance(self._loader, WorkerLoader):
            self.size = self._loader.size
            return batch
        self.size = len(batch[0])
        if count() == 1:
            return batch
        own = share(self.size)
        return [values[own] if own.stop > own.start else values[:1] for values in batch]

    def _next(self, iterator: Iterator[Any]) -> Any:
        with self._checkpoints.randomness.use():
            return next(iterator, _END)


class ResumableTraining(_Loop):
    """What lets a strategy's training begin in the middle of an experience: stands before its class.

    Attributes:
        checkpoints: set before training.
        engine: set before training.
    """

    checkpoints: Checkpoints
    engine: Engine
    dataloader: Any
    _stop_training: bool

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        """As Avalanche's, but for the first epoch and the batches."""
        same_weights(self.model)
        batches = self.dataloader = Batches(self.checkpoints, self, self.dataloader, self.engine.workers)
        for epoch in range(batches.epoch, self.train_epochs):
            if not (batches.is_resumed and epoch == batches.epoch):
                self._before_training_epoch(**kwargs)
            batches.epoch, batches.is_resumed = epoch, False
            if self._stop_training:
                self._stop_training = False
                break
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)

    def training_epoch(self, **kwargs: Any) -> None:
        """As Avalanche's, but for a batch that goes through the model in parts; hooks of a pass run for each."""
        for self.mbatch in self.dataloader:  # noqa: B020
            if self._stop_training:
                break
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            self.optimizer.zero_grad()
            whole, losses = self.mbatch, []
            for part in self.engine.parts(whole, self.dataloader.size):
                self.mbatch = part
                self.loss = self._make_empty_loss()
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self.loss += self.criterion()
                self._before_backward(**kwargs)
                self.backward()
                losses.append(self.loss)
            if len(losses) > 1:
                self.mbatch = whole
                self.loss = torch.stack([loss.detach() for loss in losses]).mean(dim=0)
            self.loss = self.engine.gradients_done(self.optimizer, self.loss)
            self._after_backward(**kwargs)
            self._before_update(**kwargs)
            self.optimizer_step()
            self._after_update(**kwargs)
            self._after_training_iteration(**kwargs)

    def forward(self) -> Any:
        """As the strategy's; what is computed from here to the end of `backward` is in the engine's precision."""
        return self.engine.forward(super().forward) if self.is_training else super().forward()

    def criterion(self) -> Any:
        """As the strategy's, in training as the engine has it."""
        if self.is_training:
            return self.engine.loss(self, super().criterion)
        return super().criterion()

    def backward(self) -> None:
        """As Avalanche's, with gradients that are scaled meanwhile where float16 needs it."""
        self.engine.backward(self.loss, self.retain_graph)

    def optimizer_step(self) -> None:
        """As Avalanche's; where gradients have overflowed there is no step."""
        self.engine.step(self.optimizer)


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
