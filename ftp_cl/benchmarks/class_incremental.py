"""The builder of the class-incremental benchmarks: labelled datasets and a class order -> an Avalanche scenario.

A benchmark of this package is a thin function on top of four steps: make the datasets, ``draw_identities`` (what is for
training, what for validation, how many shots), ``draw_class_order``, and ``class_incremental_scenario``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import dill
import numpy as np
from avalanche.benchmarks.scenarios import CLScenario, DatasetExperience, EagerCLStream
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
)
from avalanche.checkpointing import constructor_based_serialization

from ftp_cl.benchmarks._dataset import InMemoryDataset

Identity = TypeVar("Identity", int, str)
Transform = Callable[[Any], Any]


class LabelledDataset(Protocol):
    """A map-style dataset of ``(input, class index)`` that also lists its class indices, as torchvision's do."""

    @property
    def targets(self) -> Sequence[int]:
        """The class index of each item."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...


@dataclass(frozen=True)
class StreamData:
    """What one stream is cut from: ``dataset``, or its items at ``indices`` only."""

    dataset: LabelledDataset
    indices: Sequence[int] | None = None


class ClassIncrementalScenario(CLScenario):
    """An Avalanche benchmark that says what it consists of.

    Attributes:
        description: plain dicts, lists, strings and numbers, fit for a result file: ``class_order``; ``experiences``,
            the classes and class names of each; ``stream_sizes``, the number of items of each experience of each
            stream; and whatever the function that made the benchmark recorded about its data.
    """

    def __init__(self, streams: Sequence[EagerCLStream], description: dict[str, Any]) -> None:
        super().__init__(streams)
        self.description = description


def draw_class_order(n_classes: int, seed: int, fixed_class_order: Sequence[int] | None = None) -> list[int]:
    """Return ``fixed_class_order``, or the permutation ``numpy.random.default_rng(seed)`` of the classes.

    Raises:
        ValueError: if ``fixed_class_order`` is not a permutation of 0 ... n_classes - 1, or ``seed`` is negative.
    """
    if fixed_class_order is None:
        return np.random.default_rng(_checked_seed(seed)).permutation(n_classes).tolist()
    order = [int(c) for c in fixed_class_order]
    if sorted(order) != list(range(n_classes)):
        missing = sorted(set(range(n_classes)) - set(order))
        surplus = sorted({c for c in order if order.count(c) > 1 or not 0 <= c < n_classes})
        raise ValueError(
            f"fixed_class_order must name each class 0 to {n_classes - 1} once: "
            f"missing {missing or 'none'}, repeated or unknown {surplus or 'none'}."
        )
    return order


def draw_identities(
    identities: Mapping[str, Sequence[Identity]], *, validation_fraction: float, shots: int | None, seed: int
) -> tuple[dict[str, list[Identity]], dict[str, list[Identity]]]:
    """Divide the training identities of each class into those to train on and those to validate on.

    An identity is what must not be in two parts at once: an emoji in all its styles, or simply the number of an item.
    Each class is shuffled by a generator of its own, from ``seed`` and the class's position. The first ones, rounded
    and one at least, are for validation; of the rest the first ``shots`` are for training. So the validation
    identities depend on neither ``shots`` nor the class order, and fewer shots are a subset of more.

    Args:
        identities: class name -> training identities, in the order of the class indices; each list in an order that is
            the same in every run.
        validation_fraction: share of each class's identities for validation, between 0 and 1, both excluded.
        shots: training identities per class; None for all that remain.
        seed: 0 or more.

    Returns:
        (training, validation), each class name -> identities in the order drawn.

    Raises:
        ValueError: if an argument is out of range, or a class has fewer training identities than ``shots``.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction={validation_fraction} must lie between 0 and 1, both excluded.")
    if shots is not None and shots < 1:
        raise ValueError(f"shots={shots} leaves nothing to train on: use 1 or more, or None for all.")
    _checked_seed(seed)
    training, validation = {}, {}
    for position, (name, members) in enumerate(identities.items()):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(position,)))
        shuffled = [members[i] for i in generator.permutation(len(members))]
        n_validation = max(1, round(validation_fraction * len(members)))
        validation[name], rest = shuffled[:n_validation], shuffled[n_validation:]
        if len(rest) < (shots or 1):
            raise ValueError(
                f"Class {name!r} has {len(rest)} training identities beside {n_validation} for validation, "
                f"fewer than the {shots or 1} asked for: use fewer shots or a smaller validation_fraction."
            )
        training[name] = rest[:shots]
    return training, validation


def class_incremental_scenario(
    streams: Mapping[str, StreamData],
    class_order: Sequence[int],
    n_experiences: int,
    *,
    class_names: Sequence[str],
    return_task_id: bool = False,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    description: Mapping[str, Any] | None = None,
) -> ClassIncrementalScenario:
    """Cut every dataset into the same classes per experience.

    The experiences carry everything that Avalanche's strategies and dynamic modules ask for: the classes timeline,
    task labels, and datasets of ``(input, class index, task label)`` with both transform groups. The stream ``train``
    starts with ``train_transform``, all others with ``eval_transform``; strategies switch as they need.

    Args:
        streams: stream name -> its data; Avalanche wants at least ``train`` and ``test``.
        class_order: the classes as they arrive; experience i gets the i-th slice.
        n_experiences: how many equal slices; it must divide the number of classes.
        class_names: name of each class index.
        return_task_id: the task label of an experience is its index, instead of 0.
        train_transform: applied to the inputs while training; None leaves them as they are.
        eval_transform: the same for evaluation.
        description: what to record on top of the class order, the experiences and their sizes.

    Raises:
        ValueError: if the classes cannot be divided evenly, or a stream lacks one of them.
    """
    experiences = _slice_classes(class_order, n_experiences)
    groups = {"train": (train_transform, None), "eval": (eval_transform, None)}
    cut = [_cut_stream(name, data, experiences, return_task_id, groups) for name, data in streams.items()]
    return ClassIncrementalScenario(
        cut,
        {
            **(description or {}),
            "class_order": list(class_order),
            "experiences": [{"classes": c, "names": [class_names[i] for i in c]} for c in experiences],
            "stream_sizes": {stream.name: [len(experience.dataset) for experience in stream] for stream in cut},
        },
    )


def _slice_classes(class_order: Sequence[int], n_experiences: int) -> list[list[int]]:
    n_classes = len(class_order)
    divisors = [d for d in range(1, n_classes + 1) if n_classes % d == 0]
    if n_experiences not in divisors:
        raise ValueError(
            f"n_experiences={n_experiences} does not divide the {n_classes} classes evenly: "
            f"use one of {', '.join(map(str, divisors))}."
        )
    size = n_classes // n_experiences
    return [list(class_order[start : start + size]) for start in range(0, n_classes, size)]


def _cut_stream(
    name: str,
    data: StreamData,
    experiences: Sequence[Sequence[int]],
    return_task_id: bool,
    groups: Mapping[str, tuple[Transform | None, None]],
) -> EagerCLStream:
    _keep_small_in_checkpoints(data.dataset)
    targets = DataAttribute(data.dataset.targets, "targets")
    by_class: dict[int, list[int]] = {c: [] for classes in experiences for c in classes}
    for index in range(len(data.dataset)) if data.indices is None else data.indices:
        by_class[int(data.dataset.targets[index])].append(index)
    if missing := [c for c, indices in by_class.items() if not indices]:
        raise ValueError(f"Stream {name!r} has no items of the classes {missing}: every stream must have all classes.")

    cut = []
    for number, classes in enumerate(experiences):
        task_label = number if return_task_id else 0
        dataset = TaskAwareSupervisedClassificationDataset(
            [data.dataset],
            # In the order of the dataset, so that the items do not depend on the class order within an experience.
            indices=sorted(index for c in classes for index in by_class[c]),
            data_attributes=[targets, TaskLabels(ConstantSequence(task_label, len(data.dataset)))],
            transform_groups=TransformGroups(dict(groups)),
        )
        dataset = dataset.train() if name == "train" else dataset.eval()
        experience = DatasetExperience(dataset=dataset, current_experience=number)
        _set_attributes(experience, experiences, number, task_label)
        cut.append(experience)
    return EagerCLStream(name, cut)


def _set_attributes(
    experience: DatasetExperience, experiences: Sequence[Sequence[int]], number: int, task_label: int
) -> None:
    """Set what ``with_classes_timeline`` and ``with_task_labels`` of Avalanche set, with lists in place of sets.

    MultiHeadClassifier uses ``classes_in_this_experience`` as an index into a tensor, which a set cannot be.
    """
    seen = [c for classes in experiences[:number] for c in classes]
    here = list(experiences[number])
    experience.classes_in_this_experience = here
    experience.previous_classes = seen
    experience.classes_seen_so_far = seen + here
    experience.future_classes = [c for classes in experiences[number + 1 :] for c in classes]
    experience.task_label = task_label
    experience.task_labels = [task_label]


def _keep_small_in_checkpoints(dataset: LabelledDataset) -> None:
    """Let Avalanche's checkpoints store ``dataset`` as its constructor's arguments and share it when they are read."""
    if isinstance(dataset, InMemoryDataset):
        dill.register(type(dataset))(_save_in_checkpoint)


def _save_in_checkpoint(pickler: dill.Pickler, dataset: InMemoryDataset) -> None:
    constructor_based_serialization(
        pickler, dataset, type(dataset), deduplicate=True, kwargs=dataset.constructor_arguments()
    )


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise ValueError(f"seed={seed} is negative: use 0 or more.")
    return seed
