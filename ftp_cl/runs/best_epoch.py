"""The epoch that is best on validation images is the one that an experience ends with: `train.select=validation`."""

import copy
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from ftp_cl.metrics.plugins import StreamCounts
from ftp_cl.plugins.ftp import optimizer_of
from ftp_cl.plugins.stages import experiences_trained_on
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.directory import RunDirectory

STREAM = "validation"


class BestEpoch(SupervisedPlugin[Any]):
    """Evaluates after each epoch; before an experience ends, weights and radii of its best epoch come back.

    Accuracy is that on the validation images of the experience, among all classes seen so far. Of equal epochs the
    first is taken, as in the released code of FTP (github.com/GT-RIPL/FTP, engine_finetune.py). With the weights come
    buffers (statistics of BatchNorm), the state of the optimizer and, with it, that of FTP: anchors, radii, previous
    changes. What methods do once an experience has ended (prototypes, importances) sees these weights. It must come
    behind the plugins of methods: those that average weights show the average between epochs.

    Args:
        benchmark: with a stream `validation`.
        counts: a metric of the strategy.
        record: takes an event for each evaluation.
        workers: processes that load images; 0: this one.

    Attributes:
        epochs: chosen in each training, from 0.

    Raises:
        ConfigError: there is no such stream, or it lacks an experience that is trained on.
    """

    def __init__(self, benchmark: Any, counts: StreamCounts, record: RunDirectory, workers: int) -> None:
        super().__init__()
        self._validation = {
            experience.current_experience: experience for experience in benchmark.streams.get(STREAM, ())
        }
        trained = [e.current_experience for e in benchmark.train_stream]
        if missing := [number for number in trained if number not in self._validation]:
            raise ConfigError(
                f"train.select=validation needs validation images of experience {missing[0]}, and there are none: "
                "benchmark.validation_fraction=0.1, for instance."
            )
        self._counts, self._record, self._workers = counts, record, workers
        self.epochs: list[int] = []
        self._best: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The epochs chosen so far, and the best of the present experience."""
        return {"epochs": self.epochs, "best": self._best}

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """The inverse of `state_dict`."""
        self.epochs, self._best = state["epochs"], state["best"]

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate; keep what is better than before, and after the last epoch bring the best back."""
        epoch, optimizer = strategy.clock.train_exp_epochs, optimizer_of(strategy)
        numbers = [experience.current_experience for experience in experiences_trained_on(strategy)]
        strategy.eval([self._validation[number] for number in numbers], num_workers=self._workers)
        accuracy = self._counts.record.accuracy(self._counts.row, STREAM, numbers) or 0.0
        self._record.add_event(
            "select", experience=strategy.clock.train_exp_counter, epoch=epoch, stream=STREAM, accuracy=accuracy
        )
        if self._best is None or accuracy > self._best["accuracy"]:
            kept = {"model": strategy.model.state_dict(), "optimizer": optimizer.state_dict() if optimizer else {}}
            self._best = {"epoch": epoch, "accuracy": accuracy, **copy.deepcopy(kept)}
        if epoch + 1 == strategy.train_epochs:
            self.epochs.append(self._best["epoch"])
            with torch.no_grad():
                strategy.model.load_state_dict(self._best["model"])
            if optimizer is not None:
                optimizer.load_state_dict(self._best["optimizer"])
            self._best = None
