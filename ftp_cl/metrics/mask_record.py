"""Avalanche plugins that count pixels by stream and experience: mean IoU in place of accuracy."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from avalanche.evaluation.metric_results import MetricValue
from numpy.typing import NDArray

from ftp_cl.metrics.dense import Matrix, confusion_matrix, folded, iou_per_class, mean_iou, pixel_accuracy
from ftp_cl.metrics.evaluation_record import Record
from ftp_cl.metrics.plugins import StreamCounts

_IGNORED = 255  # value of pixels that are not counted


class MaskRecord(Record):
    """Confusion matrices of the last evaluation of each experience of each stream.

    Experiences of a stream that have the same images (class-incremental test streams) are counted once: what differs
    is whose classes are asked for.

    Attributes:
        seen: the classes that the model knew at the last evaluation.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._counts: dict[tuple[str, int], Matrix] = {}
        self._pixels: dict[tuple[str, int], Matrix] = {}
        self._owner: dict[tuple[str, int], int] = {}
        self._classes: dict[tuple[str, int], list[int]] = {}

    def start(self, experience: Any, n_classes: int) -> None:
        """Begin to count an experience anew."""
        stream = experience.origin_stream
        for number, owner in owners(stream).items():
            self._owner[stream.name, number] = owner
        for other in stream:
            self._classes[stream.name, other.current_experience] = sorted(map(int, other.classes_in_this_experience))
        place = self._place(experience)
        self._counts[place] = np.zeros((n_classes, n_classes), np.int64)
        self._pixels[place] = np.zeros((0, n_classes), np.int64)

    def add(self, experience: Any, counts: Matrix, pixels: Matrix) -> None:
        """Add a batch: the confusion matrix over all its pixels, and the pixels of each class in each image."""
        place = self._place(experience)
        self._counts[place] += counts
        self._pixels[place] = np.concatenate([self._pixels[place], pixels])

    def richest(self, stream: str) -> dict[int, tuple[int, int]]:
        """Return for each class experience and position of the image that has most of its pixels; none that lacks."""
        found: dict[int, tuple[int, int]] = {}
        most: dict[int, int] = {}
        for (name, number), pixels in self._pixels.items():
            for label in np.flatnonzero(pixels.any(axis=0) & (name == stream)).tolist():
                index = int(pixels[:, label].argmax())
                if pixels[index, label] > most.get(label, 0):
                    most[label], found[label] = int(pixels[index, label]), (number, index)
        return found

    def accuracies(self, row: int, stream: str, experiences: Sequence[int]) -> NDArray[np.float64]:
        """Return the mean IoU of each experience's classes among those seen, percent; 0 where none was seen yet."""
        return np.array([self._of_experience(stream, number) for number in experiences])

    def accuracy(self, row: int, stream: str, experiences: Sequence[int]) -> float | None:
        """Return the mean IoU of all classes seen on the images of some experiences, percent."""
        counts = self.confusion(stream, experiences)
        return None if counts is None else mean_iou(counts, self.seen)

    def confusion(self, stream: str, experiences: Iterable[int]) -> Matrix | None:
        """Return the confusion matrix over the images of some experiences, unseen classes as background."""
        owners = dict.fromkeys(self._owner.get((stream, number), number) for number in experiences)
        counts = [self._counts[stream, owner] for owner in owners if (stream, owner) in self._counts]
        return folded(np.sum(counts, axis=0), self.seen) if counts else None

    def summary(self, stream: str, names: Sequence[str]) -> dict[str, Any]:
        """Return mean IoU, pixel accuracy and the IoU of each class that was seen and is there, percent."""
        counts = self.confusion(stream, [number for name, number in self._owner if name == stream])
        if counts is None:
            return {}
        found = iou_per_class(counts)
        return {
            "mean_iou": mean_iou(counts, self.seen),
            "pixel_accuracy": pixel_accuracy(counts),
            "iou": {names[label]: float(found[label]) for label in self.seen if math.isfinite(found[label])},
        }

    def _place(self, experience: Any) -> tuple[str, int]:
        name = experience.origin_stream.name
        return name, self._owner[name, experience.current_experience]

    def _of_experience(self, stream: str, number: int) -> float:
        counts = self.confusion(stream, [number])
        own = [label for label in self._classes.get((stream, number), []) if label in self.seen]
        if counts is None or not own:
            return math.nan if counts is None else 0.0
        return mean_iou(counts, own)


def owners(stream: Any) -> dict[int, int]:
    """Return for each experience of a stream the first one that has the very same images."""
    first: dict[int, int] = {}
    return {e.current_experience: first.setdefault(id(e.dataset), e.current_experience) for e in stream}


class MaskCounts(StreamCounts):
    """Counts pixels for whoever reads the record, and emits mean IoU and pixel accuracy of each stream.

    Hand it to Avalanche's ``EvaluationPlugin``; ``record`` has the rest. A model that says which
    classes it has met (``known_classes``) is asked for these; the pixels of others are background.

    Args:
        n_classes: of the masks, the background included.
    """

    record: MaskRecord
    metric, unit = "mean_iou", "mean IoU"

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self._evaluated: list[Any] = []

    def reset(self) -> None:
        """Forget everything."""
        self.record = MaskRecord()

    def result(self) -> dict[str, float]:
        """Return the mean IoU of each stream evaluated last, percent."""
        numbers: dict[str, list[int]] = {}
        for experience in self._evaluated:
            numbers.setdefault(experience.origin_stream.name, []).append(experience.current_experience)
        found = {name: self.record.accuracy(0, name, of_stream) for name, of_stream in numbers.items()}
        return {name: value for name, value in found.items() if value is not None}

    def to_evaluate(self, stream: Any) -> list[Any]:
        """Return what of a stream must be gone through for the numbers of all its experiences: all images, once."""
        first = owners(stream)
        return [e for e in stream if first[e.current_experience] == e.current_experience]

    def before_eval(self, strategy: Any) -> None:
        """Begin to note what is evaluated."""
        self._evaluated = []

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin with one experience of one stream."""
        known = getattr(strategy.model, "known_classes", None)
        self.record.seen = list(range(self.n_classes)) if known is None else sorted(known)
        self._evaluated.append(strategy.experience)
        self.record.start(strategy.experience, self.n_classes)

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the pixels of a batch."""
        predicted = strategy.mb_output.detach().argmax(dim=1)
        counts = confusion_matrix(predicted, strategy.mb_y, self.n_classes, _IGNORED)
        masks = strategy.mb_y.flatten(1).cpu().numpy()
        pixels = [np.bincount(mask[mask != _IGNORED], minlength=self.n_classes) for mask in masks]
        self.record.add(strategy.experience, counts, np.array(pixels, np.int64))

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit mean IoU and pixel accuracy of the streams."""
        x = strategy.clock.train_iterations
        values = []
        for name, iou in self.result().items():
            counts = self.record.confusion(name, [e.current_experience for e in self._evaluated])
            assert counts is not None
            values.append(MetricValue(self, f"MeanIoU/eval_phase/{name}_stream", iou, x))
            values.append(MetricValue(self, f"PixelAccuracy/eval_phase/{name}_stream", pixel_accuracy(counts), x))
        return values
