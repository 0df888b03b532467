"""The builder of the class-incremental benchmarks: labelled datasets -> an Avalanche scenario.

A benchmark of this package is a thin function that makes the datasets and hands them to ``split_classes``. What is for
training, what for validation, and how many shots, ``draw_identities`` draws; the class order, ``draw_class_order``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from numbers import Integral
from typing import Any, TypeVar

import numpy as np

from ftp_cl.benchmarks._checks import check_names, check_seed, class_indices, generator_of
from ftp_cl.benchmarks._dataset import LabelledDataset, NamedDataset
from ftp_cl.benchmarks.scenario import DescribedScenario, ExperienceData, Transform, make_stream, transform_groups

Identity = TypeVar("Identity", int, str)

_LARGEST_RECORD = 10_000


@dataclass(frozen=True, kw_only=True)
class Split:
    """What both kinds of benchmark have in common; see ``ClassSplit`` and ``DomainSplit``.

    Attributes are as in ``ftp_cl.benchmarks.options.SplitOptions``, but that images are left as they are by default;
    ``label_percent`` is the share of the training items of each class (and domain) to train on, above 0 to 100, one
    item at least.
    """

    shots: int | None = None
    label_percent: float = 100
    validation_fraction: float | None = None
    return_task_id: bool = False
    train_transform: Transform | None = None
    eval_transform: Transform | None = None

    def settings(self) -> dict[str, Any]:
        """Return what a result file records of it; the class order is recorded as it was drawn."""
        left_out = ("fixed_class_order", "train_transform", "eval_transform")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def draw(
        self, identities: Mapping[str, Sequence[Identity]], seed: int
    ) -> tuple[dict[str, list[Identity]], dict[str, list[Identity]]]:
        """Return what to train and what to validate on, see ``draw_identities``."""
        share, shots, percent = self.validation_fraction, self.shots, self.label_percent
        return draw_identities(identities, validation_fraction=share, shots=shots, label_percent=percent, seed=seed)


@dataclass(frozen=True)
class ClassSplit(Split):
    """How a dataset is cut into experiences: what the ``split_*`` functions have in common.

    Attributes:
        n_experiences: how many of equal size, see ``first_exp_with_half_classes``; or how many classes each has.
        seed: draws the class order, the validation items and the shots, each independently of the others.
        fixed_class_order: see ``ftp_cl.benchmarks.options.ClassOptions``, as the next; the others as in ``Split``.
        first_exp_with_half_classes: see there.
    """

    n_experiences: int | Sequence[int]
    seed: int
    fixed_class_order: Sequence[int] | None = field(default=None, kw_only=True)
    first_exp_with_half_classes: bool = field(default=False, kw_only=True)


def split_classes(
    name: str,
    train: NamedDataset,
    test: LabelledDataset,
    split: ClassSplit,
    settings: Mapping[str, Any],
    validation: LabelledDataset | None = None,
    identities: Sequence[int] | Sequence[str] | None = None,
) -> DescribedScenario:
    """Cut a training and a test set into streams ``train``, ``test`` and, if asked for, ``validation``.

    Experience i of every stream gets the i-th slice of the class order. The slices are equal, so that n_experiences
    must divide the number of classes, or with ``first_exp_with_half_classes`` n_experiences - 1 those that experience 0
    leaves; or of the sizes that n_experiences lists. A class of which there is nothing to train on is left out of the
    benchmark, and recorded: some published lists have such classes.

    Args:
        name: of the benchmark, for its description.
        train: what to train and validate on; it names the classes.
        test: what to test on; its class indices mean the same.
        split: how to cut.
        settings: what to record on top of ``split`` and of what was drawn.
        validation: what to validate on where ``split`` draws nothing for it; its class indices mean the same.
        identities: of each item of ``train``, see ``draw_identities``; None where each item is its own.

    Raises:
        ValueError: as ``draw_identities``; if the classes cannot be divided so, or a stream has nothing of an
            experience's classes; of the stream ``validation``, such experiences are left out.
    """
    owners: Sequence[Any] = range(len(train)) if identities is None else identities
    members = {name: sorted({owners[i] for i in items}) for name, items in indices_by_class(train).items() if items}
    if not members:
        raise ValueError(f"{name} has nothing to train on: none of its {len(train.classes)} classes has an item.")
    present = [train.classes[c] in members for c in range(len(train.classes))]
    class_order = [c for c in draw_class_order(len(present), split.seed, split.fixed_class_order) if present[c]]
    training, drawn = split.draw(members, split.seed)
    slices = _slice_classes(class_order, split.n_experiences, split.first_exp_with_half_classes)
    labels = range(len(slices)) if split.return_task_id else [0] * len(slices)
    streams = {"train": (train, _items_of(training, owners)), "test": (test, range(len(test)))}
    if split.validation_fraction is not None:
        streams["validation"] = (train, _items_of(drawn, owners))
    elif validation is not None:
        streams["validation"] = (validation, range(len(validation)))
    groups = transform_groups(split.train_transform, split.eval_transform)
    return DescribedScenario(
        [make_stream(s, _cut(s, *parts, slices, labels, len(present)), groups) for s, parts in streams.items()],
        {
            "benchmark": name,
            **split.settings(),
            **settings,
            "classes_left_out": [name for name in train.classes if name not in members],
            "training_identities": _fit_to_record(training) if split.shots or split.label_percent < 100 else None,
            "validation_identities": _fit_to_record(drawn) if split.validation_fraction is not None else None,
            "class_order": class_order,
            "experiences": [{"classes": c, "names": [train.classes[i] for i in c]} for c in slices],
        },
    )


def indices_by_class(dataset: NamedDataset) -> dict[str, list[int]]:
    """Return class name -> the indices of its items, in the order of the class indices.

    Raises:
        ValueError: if a target is no class index, or two classes have one name.
    """
    check_names("the dataset to train on", dataset.classes)
    members: list[list[int]] = [[] for _ in dataset.classes]
    for index, target in enumerate(class_indices("The dataset to train on", dataset.targets, len(dataset.classes))):
        members[target].append(index)
    return dict(zip(dataset.classes, members, strict=True))


def _fit_to_record(identities: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]] | None:
    """Return what was drawn, or None where it would swell a result file; the settings give it again."""
    return dict(identities) if sum(map(len, identities.values())) <= _LARGEST_RECORD else None


def _items_of(identities: Mapping[str, Sequence[Any]], owners: Sequence[Any]) -> list[int]:
    wanted = {identity for members in identities.values() for identity in members}
    return [index for index, identity in enumerate(owners) if identity in wanted]


def draw_class_order(n_classes: int, seed: int, fixed_class_order: Sequence[int] | None = None) -> list[int]:
    """Return ``fixed_class_order``, or the permutation ``numpy.random.default_rng(seed)`` of the classes.

    Raises:
        ValueError: if ``fixed_class_order`` is not a permutation of 0 ... n_classes - 1, or ``seed`` is negative.
    """
    if fixed_class_order is None:
        check_seed(seed)
        return np.random.default_rng(seed).permutation(n_classes).tolist()
    order = class_indices("fixed_class_order", fixed_class_order, None)
    if sorted(order) != list(range(n_classes)):
        missing = sorted(set(range(n_classes)) - set(order))
        surplus = sorted({c for c in order if order.count(c) > 1 or not 0 <= c < n_classes})
        raise ValueError(
            f"fixed_class_order must name each class 0 to {n_classes - 1} once: "
            f"missing {missing or 'none'}, repeated or unknown {surplus or 'none'}."
        )
    return order


def draw_identities(
    identities: Mapping[str, Sequence[Identity]],
    *,
    validation_fraction: float | None,
    shots: int | None,
    seed: int,
    label_percent: float = 100,
) -> tuple[dict[str, list[Identity]], dict[str, list[Identity]]]:
    """Divide the training identities of each class into those to train on and those to validate on.

    An identity is what must not be in two parts at once: an emoji in all its styles, or simply the number of an item.
    Each class is shuffled by a generator of its own, from ``seed`` and the class's position. The first ones, rounded
    and one at least, are for validation; of the rest the first ``shots`` or ``label_percent`` are for training. So the
    validation identities depend on neither of these nor on the class order, and fewer shots are a subset of more.

    Args:
        identities: class name -> training identities, in the order of the class indices; each list in an order that is
            the same in every run.
        validation_fraction: share of each class's identities for validation, between 0 and 1, both excluded; None for
            no validation.
        shots: training identities per class; None for all that remain.
        seed: 0 or more.
        label_percent: share of what remains to train on, above 0 to 100, rounded and one at least.

    Returns:
        (training, validation), each class name -> identities in the order drawn.

    Raises:
        ValueError: if an argument is out of range, or a class has fewer training identities than ``shots``.
    """
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction={validation_fraction} must lie between 0 and 1, both excluded.")
    if shots is not None and not (isinstance(shots, Integral) and shots >= 1):
        raise ValueError(f"shots={shots} is no number of images to train on: use 1 or more, or None for all.")
    if not 0 < label_percent <= 100:
        raise ValueError(f"label_percent={label_percent} must lie above 0 and be at most 100.")
    if shots is not None and label_percent < 100:
        raise ValueError("shots and label_percent both limit the training items: give one of them.")
    check_seed(seed)
    training, validation = {}, {}
    for position, (name, members) in enumerate(identities.items()):
        shuffled = [members[i] for i in generator_of(seed, position).permutation(len(members))]
        n_validation = 0 if validation_fraction is None else max(1, round(validation_fraction * len(members)))
        validation[name], rest = shuffled[:n_validation], shuffled[n_validation:]
        if len(rest) < (shots or 1):
            raise ValueError(
                f"Class {name!r} has {len(rest)} training identities beside {n_validation} for validation, "
                f"fewer than the {shots or 1} asked for: use fewer shots or a smaller validation_fraction."
            )
        training[name] = rest[: max(1, round(label_percent / 100 * len(rest)))][:shots]
    return training, validation


def _slice_classes(class_order: Sequence[int], n_experiences: int | Sequence[int], first_half: bool) -> list[list[int]]:
    sizes = _sizes(len(class_order), n_experiences, first_half)
    return [list(class_order[end - size : end]) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _sizes(n_classes: int, n_experiences: int | Sequence[int], first_half: bool) -> Sequence[int]:
    """Return how many classes each experience has."""
    if isinstance(n_experiences, Sequence):
        if first_half:
            raise ValueError(
                f"n_experiences={list(n_experiences)} lists the sizes of all: leave first_exp_with_half_classes out."
            )
        whole = all(isinstance(size, Integral) and size >= 1 for size in n_experiences)
        if not whole or sum(n_experiences) != n_classes:
            raise ValueError(
                f"n_experiences={list(n_experiences)} must list how many classes each experience has, at least 1, and "
                f"{n_classes} together."
            )
        return n_experiences
    n_first = n_classes // 2 if first_half else 0
    n_rest = n_classes - n_first
    choices = [d + bool(n_first) for d in range(1, n_rest + 1) if n_rest % d == 0]
    if not isinstance(n_experiences, Integral):
        raise ValueError(
            f"n_experiences={n_experiences} must be a whole number, or a list of how many classes each has."
        )
    if n_experiences not in choices:
        after = f" left after the first {n_first}" if n_first else ""
        raise ValueError(
            f"n_experiences={n_experiences} does not divide the {n_rest} classes{after} evenly: "
            f"use one of {', '.join(map(str, choices))}."
        )
    n_equal = n_experiences - bool(n_first)
    return [n_first] * bool(n_first) + [n_rest // n_equal] * n_equal


def _cut(
    name: str,
    dataset: LabelledDataset,
    indices: Sequence[int],
    slices: Sequence[Sequence[int]],
    task_labels: Sequence[int],
    n_classes: int,
) -> list[ExperienceData]:
    targets = class_indices(f"The dataset of stream {name!r}", dataset.targets, n_classes)
    experience_of = {c: number for number, classes in enumerate(slices) for c in classes}
    items: list[list[int]] = [[] for _ in slices]
    for index in indices:
        if targets[index] in experience_of:
            items[experience_of[targets[index]]].append(index)
    empty = [number for number, own in enumerate(items) if not own]
    # A published validation list may lack classes, and with them small experiences.
    if empty and not (name == "validation" and len(empty) < len(slices)):
        raise ValueError(f"Stream {name!r} has no items of the classes of experience {empty[0]}, {slices[empty[0]]}.")
    return [ExperienceData(dataset, *parts) for parts in zip(items, slices, task_labels, strict=True)]
