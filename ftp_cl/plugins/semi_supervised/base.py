"""What the semi-supervised plugins have in common: an unlabelled batch and its loss beside each labelled batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import SupervisedPlugin
from avalanche.models.utils import avalanche_forward
from avalanche.training.plugins import EarlyStoppingPlugin
from torch import Tensor, nn

from ftp_cl.plugins.last_model import LastModel
from ftp_cl.plugins.processes import count, joined
from ftp_cl.plugins.semi_supervised.batches import UnlabelledBatch, UnlabelledBatches, View
from ftp_cl.plugins.semi_supervised.weight_average import WeightAverage
from ftp_cl.plugins.stages import classes_trained_on, experiences_trained_on, matching, refuse_inner_updates
from ftp_cl.plugins.stages import joined as joined_data

_STREAM = "unlabelled"


@dataclass(frozen=True)
class PseudoLabels:
    """What a method took some unlabelled images for.

    Attributes:
        indices: which items of the unlabelled experience [B].
        labels: class index of each [B].
        used: whether the label was used [B].
    """

    indices: Tensor
    labels: Tensor
    used: Tensor


@dataclass(frozen=True)
class UnlabelledLoss:
    """A method's loss on a batch, and what it took the images for: ``labels`` are columns of the logits."""

    loss: Tensor
    labels: Tensor
    used: Tensor


class SemiSupervisedPlugin(SupervisedPlugin[Any]):
    """Adds a loss on unlabelled images to the strategy's own: base of the methods in this package.

    Each iteration takes a batch of the unlabelled experience that belongs to the one trained on; with joint training,
    of all. The loss is added in ``before_backward``, so replay, LwF and FTPPlugin combine with it; with ``ema_decay``,
    put it before plugins that look at the weights when an iteration begins (SynapticIntelligencePlugin), which then
    meet those that are trained. It does not use the strategy's criterion.

    Args:
        views: what is made of each unlabelled image.
        ratio: unlabelled images per labelled one of a full batch; above 0.
        weight: factor on the loss; 0 or more.
        classes: what a pseudo-label may be. "experience": a class of the experience, and only these classes compete, as
            with ``SeparatedSoftmax``. "seen": any class seen so far.
        ema_decay: of the weights' moving average, which is what the model has between epochs, what is evaluated and
            what stays at the end of the experience (see ``WeightAverage``); None for the weights themselves.
        unlabelled: the stream of unlabelled images, such as ``benchmark.streams["unlabelled"]``; None to take that of
            the benchmark that the experience comes from (``few_labels`` makes one).
        record: keep what images were taken for, until ``take_pseudo_labels`` is called.

    Attributes:
        numbers: of the experiences whose unlabelled images are used, in the order in which items are counted.
        workers: processes that load unlabelled images and make their views; 0: this one. The ``num_workers`` of
            ``strategy.train`` sets it.

    Raises:
        ValueError: for an argument that is out of range, or, at the first experience, an unlabelled stream that is
            missing or does not fit the training stream, which an online stream never does, or an EarlyStoppingPlugin
            that looks at weights within an epoch while their average is evaluated.
    """

    def __init__(
        self,
        views: Sequence[View],
        *,
        ratio: float,
        weight: float,
        classes: Literal["experience", "seen"] = "experience",
        ema_decay: float | None = None,
        unlabelled: Any = None,
        record: bool = False,
    ) -> None:
        super().__init__()
        if not ratio > 0:
            raise ValueError(f"ratio={ratio} leaves no unlabelled image beside a labelled one: it must be above 0.")
        if math.isinf(ratio):
            raise ValueError(f"ratio={ratio} is no number of unlabelled images: it must be finite.")
        if not weight >= 0:
            raise ValueError(f"weight={weight} must be 0 or more.")
        if classes not in ("experience", "seen"):
            raise ValueError(f"classes={classes!r} is unknown: choose 'experience' or 'seen'.")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay={ema_decay} must lie between 0 and 1, 1 excluded, or be None.")
        self.views = tuple(views)
        self.ratio = ratio
        self.weight = weight
        self.classes = classes
        self.ema_decay = ema_decay
        self.unlabelled = unlabelled
        self.record = record
        self.numbers: list[int] = []
        self.workers = 0
        self._candidates: list[int] = []
        self._seen: set[int] = set()
        self._batches: UnlabelledBatches | None = None
        self._average: WeightAverage | None = None
        self._was_shown = False
        self._done = 0
        self._last_model = LastModel()
        self._epochs: list[list[PseudoLabels]] = []

    # ---- for methods -----------------------------------------------------------------------------------------------

    def begin(self, n_items: int, n_classes: int) -> None:
        """Start an experience with so many unlabelled images and classes that they may be; forget the one before."""

    def unlabelled_loss(self, strategy: Any, batch: UnlabelledBatch) -> UnlabelledLoss:
        """Return the loss of a batch on the strategy's device, without ``weight``."""
        raise NotImplementedError

    def ramp(self, progress: float) -> float:
        """Return a factor on the loss when a share ``progress`` of the experience's iterations is done."""
        return 1.0

    def method_state(self) -> dict[str, Any]:
        """Return what the method has learned in this experience: plain values and tensors."""
        return {}

    def restore_method_state(self, state: dict[str, Any]) -> None:
        """Take in what ``method_state`` returned."""

    def logits(self, strategy: Any, model: nn.Module, images: Tensor, batch: UnlabelledBatch) -> Tensor:
        """Return the logits [B, C] of the classes that a pseudo-label may be, in ascending order of class index."""
        if hasattr(strategy.experience, "task_labels"):
            return avalanche_forward(model, images, batch.task_labels)[:, self._candidates]
        return model(images)[:, self._candidates]

    def teacher(self, strategy: Any) -> nn.Module:
        """Return the model with averaged weights, or the model itself where no average is kept."""
        return strategy.model if self._average is None else self._average.model

    # ---- readings --------------------------------------------------------------------------------------------------

    def take_pseudo_labels(self) -> list[PseudoLabels]:
        """Return, with ``record``, what images were taken for in each epoch since the last call, in order.

        The plugin knows no true label: who has them (``hidden_labels``) compares, outside of training.
        """
        taken = [[vars(part).values() for part in epoch] for epoch in self._epochs if epoch]
        self._epochs = []
        return [PseudoLabels(*map(torch.cat, zip(*parts, strict=True))) for parts in taken]

    def state_dict(self) -> dict[str, Any]:
        """Return what training goes on from: plain values and tensors."""
        batches = self._batches
        return {
            "seen": sorted(self._seen),
            "numbers": self.numbers,
            "done": self._done,
            "place": None if batches is None else batches.place,
            "average": None if self._average is None else self._average.state_dict(),
            "method": self.method_state(),
            "epochs": [[vars(part) for part in epoch] for epoch in self._epochs],
        }

    def load_state_dict(self, state: dict[str, Any], strategy: Any) -> None:
        """Take in what ``state_dict`` returned; within an experience, after ``before_training_exp``."""
        self._seen, self._done, self.numbers = set(state["seen"]), state["done"], state["numbers"]
        self._epochs = [[PseudoLabels(**part) for part in epoch] for epoch in state["epochs"]]
        self._average = None
        if state["average"] is not None:
            self._average = WeightAverage(strategy.model, self.ema_decay or 0.0)
            self._average.load_state_dict(state["average"])
        if self._batches is not None and state["place"] is not None:
            self._batches.place = state["place"]
            self.restore_method_state(state["method"])

    # ---- Avalanche's hooks -----------------------------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, num_workers: int | None = None, **kwargs: Any) -> None:
        """Find the unlabelled images of this experience and the classes that they may be."""
        if isinstance(strategy.experience, OnlineCLExperience):
            raise ValueError(
                f"{type(self).__name__} needs whole experiences, and an online stream gives pieces that no unlabelled "
                "images belong to: train on the benchmark's own train stream, for one epoch if need be."
            )
        refuse_inner_updates(strategy, type(self).__name__)
        stopping = [p for p in strategy.plugins if isinstance(p, EarlyStoppingPlugin) and p.peval_mode == "iteration"]
        if self.ema_decay is not None and stopping:
            raise ValueError(
                f"{type(self).__name__} evaluates averaged weights, and EarlyStoppingPlugin(peval_mode='iteration') "
                "would restore those that they were averaged from: use peval_mode='epoch', or ema_decay=None."
            )
        self._average = self._batches = None  # of an experience that was interrupted
        experiences = experiences_trained_on(strategy)
        if not experiences:
            return  # joint training has had them
        self.numbers = [experience.current_experience for experience in experiences]
        unlabelled, current = _unlabelled(experiences, self.unlabelled), classes_trained_on(strategy)
        if self._last_model.changes_to(strategy.model):
            self._seen, self._epochs = set(), []
        self._seen |= set(current)
        self._candidates = sorted(self._seen) if self.classes == "seen" else current
        labelled = min(strategy.train_mb_size, len(strategy.adapted_dataset))
        batch_size = max(1, round(self.ratio * labelled))
        self.workers = self.workers if num_workers is None else num_workers
        on_gpu = strategy.device.type == "cuda"
        self._batches = UnlabelledBatches(unlabelled.eval(), self.views, batch_size, self.workers, on_gpu)
        self._done = 0
        self.begin(len(unlabelled), len(self._candidates))

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Open the epoch's record."""
        if self.record:
            self._epochs.append([])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Train the weights themselves; begin their average here, when nothing changes them any more but training."""
        if self.ema_decay is not None and self._average is None:
            self._average = WeightAverage(strategy.model, self.ema_decay)
        self._show_average(strategy, False)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss of one unlabelled batch."""
        assert self._batches is not None
        batch = next(self._batches).to(strategy.device)  # this process's share: all have drawn the same batch
        size = len(self._batches.indices)
        found = self.unlabelled_loss(strategy, batch)
        share = found.loss if count() == 1 else found.loss * (len(batch.indices) * count() / size)
        # Counted here and not before training: a plugin of replay that comes later has another loader by now.
        iterations = len(strategy.dataloader) * strategy.train_epochs
        strategy.loss = strategy.loss + self.weight * self.ramp(self._done / iterations) * share
        self._done += 1
        if self.record:
            labels, used = found.labels, found.used
            if count() > 1:
                labels, used = (joined(part.long(), size) for part in (labels, used))
            labels = torch.tensor(self._candidates)[labels.cpu()]
            self._epochs[-1].append(PseudoLabels(self._batches.indices, labels, used.bool().cpu()))

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """Average the weights, after the optimizer's step and whatever projects them."""
        if self._average is not None:
            self._average.update(strategy.model)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """What the model is between epochs is what is evaluated, kept and, in the end, adopted."""
        self._show_average(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the data, and of the weights that led to the average."""
        self._average = self._batches = None

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate the averaged weights within an epoch too."""
        self._was_shown = self._average is not None and self._average.is_shown
        self._show_average(strategy)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Go on with the weights that there were."""
        self._show_average(strategy, self._was_shown)

    def _show_average(self, strategy: Any, shown: bool = True) -> None:
        if self._average is not None and self._average.is_shown != shown:
            self._average.swap(strategy.model)


def check_threshold(threshold: float) -> None:
    """Raise a ValueError if a threshold is no probability."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold={threshold} is no probability: it must lie between 0 and 1.")


def _unlabelled(experiences: Sequence[Any], stream: Any) -> Any:
    """Return the unlabelled images that belong to training experiences, as one dataset."""
    training = experiences[0].origin_stream
    if stream is None:
        if training.benchmark is None:
            raise ValueError(
                "The experience does not know its benchmark, as those of Avalanche's benchmark_from_datasets do not: "
                f"pass unlabelled=benchmark.streams[{_STREAM!r}]."
            )
        streams = getattr(training.benchmark, "streams", {})
        if _STREAM not in streams:
            raise ValueError(
                f"There are no unlabelled images: the benchmark has no stream {_STREAM!r}; few_labels(benchmark, ...) "
                "makes one."
            )
        stream = streams[_STREAM]
    found = matching(experiences, stream, _STREAM)
    for experience in found:
        if not len(experience.dataset):
            raise ValueError(f"Experience {experience.current_experience} of the unlabelled stream is empty.")
    return joined_data(found)
