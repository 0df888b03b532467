"""Experiences, streams and scenarios of Avalanche, made from labelled datasets and indices into them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import dill
from avalanche.benchmarks.scenarios import CLExperience, CLScenario, DatasetExperience, EagerCLStream
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
)
from avalanche.checkpointing import constructor_based_serialization

from ftp_cl.benchmarks._dataset import LabelledDataset, RebuildableDataset
from ftp_cl.benchmarks._sources import Layer, with_layers
from ftp_cl.benchmarks.options import Transform

TIMELINE = ("classes_in_this_experience", "previous_classes", "classes_seen_so_far", "future_classes")
"""What Avalanche's experiences say of the classes of their stream."""


@dataclass(frozen=True)
class StreamKind:
    """What a stream is for; each stream of this package has one as its attribute ``kind``.

    Attributes:
        role: "train", "validation", "test", "unlabelled" (training images without labels) or "ood" (test images that
            are shifted).
        corruption: of an OOD stream of corrupted images, one of ``CORRUPTIONS``; None for others.
        severity: 1 (weak) to 5, likewise.
    """

    role: str
    corruption: str | None = None
    severity: int | None = None


OOD = StreamKind("ood")
_UNSHIFTED = ("train", "validation", "test", "unlabelled")


class DescribedScenario(CLScenario):
    """An Avalanche benchmark that says what it consists of.

    Attributes:
        description: plain dicts, lists, strings and numbers, fit for a result file: ``experiences``, the classes and
            class names of each; ``stream_sizes``, the number of items of each experience of each stream; and whatever
            the function that made the benchmark recorded about its data.
    """

    def __init__(self, streams: Sequence[EagerCLStream], description: Mapping[str, Any]) -> None:
        super().__init__(streams)
        # Avalanche leaves this to the caller; plugins find the other streams through it. A stream may be in several
        # benchmarks (one made from the other): it leads to the first.
        for stream in streams:
            if stream.benchmark is None:
                stream.benchmark = self
        self.description: dict[str, Any] = {
            key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            for key, value in description.items()
        }
        self.description["stream_sizes"] = {s.name: [len(experience.dataset) for experience in s] for s in streams}


@dataclass(frozen=True)
class ExperienceData:
    """What one experience is made from.

    Attributes:
        dataset: where its items come from.
        indices: which of them, in ascending order; none where the dataset has nothing of these classes.
        classes: the class indices that belong to the experience, whether or not the dataset has items of each.
        task_label: of all its items.
        layers: transforms that come after those of the stream.
    """

    dataset: LabelledDataset
    indices: Sequence[int]
    classes: Sequence[int]
    task_label: int = 0
    layers: Sequence[Layer] = ()


def transform_groups(train_transform: Transform | None, eval_transform: Transform | None) -> TransformGroups:
    """Return Avalanche's two groups of transforms; None leaves inputs as they are. Targets stay untouched."""
    return TransformGroups({"train": (train_transform, None), "eval": (eval_transform, None)})


def make_stream(
    name: str, experiences: Sequence[ExperienceData], groups: TransformGroups, kind: StreamKind | None = None
) -> EagerCLStream:
    """Make a stream whose experiences carry everything that Avalanche's strategies and dynamic modules ask for.

    These are the classes timeline, task labels, and datasets of ``(input, class index, task label)`` with both
    transform groups. The stream ``train`` starts with the transforms of training, all others with those of evaluation;
    strategies switch as they need. An experience without items is left out, because Avalanche cannot evaluate it; the
    others keep their numbers, so that experience 3 has the same classes in every stream. ``kind`` as in
    ``stream_from``.
    """
    made = []
    for number, data in enumerate(experiences):
        if not data.indices:
            continue
        experience = DatasetExperience(dataset=_cut(data, groups, training=name == "train"), current_experience=number)
        # Lists, where Avalanche's with_classes_timeline has sets: MultiHeadClassifier uses the first as an index into a
        # tensor, which a set cannot be.
        experience.classes_in_this_experience = list(data.classes)
        experience.previous_classes = _classes_of(experiences[:number])
        experience.classes_seen_so_far = _classes_of(experiences[: number + 1])
        seen = set(experience.classes_seen_so_far)
        experience.future_classes = [c for c in _classes_of(experiences[number + 1 :]) if c not in seen]
        experience.task_label = data.task_label
        experience.task_labels = [data.task_label]
        made.append(experience)
    return stream_from(name, made, kind)


def stream_from(name: str, experiences: Sequence[DatasetExperience], kind: StreamKind | None = None) -> EagerCLStream:
    """Return a stream of experiences that keep their numbers and belong to no other stream.

    Args:
        name: of the stream.
        experiences: what it has.
        kind: what it is for; may be left out where its role is its name.
    """
    stream = EagerCLStream(name, experiences, set_stream_info=False)
    stream.kind = StreamKind(name) if kind is None and name in _UNSHIFTED else kind
    for experience in experiences:
        experience.origin_stream = stream
    return stream


def experience_like(experience: CLExperience, dataset: AvalancheDataset) -> DatasetExperience:
    """Return an experience that says of itself what ``experience`` does, without a reference to it.

    Not a copy: several of Avalanche's classes look up what they say in the benchmark, by the name of their stream.
    """
    made = DatasetExperience(dataset=dataset, current_experience=experience.current_experience)
    for attribute in TIMELINE:
        if hasattr(experience, attribute):
            setattr(made, attribute, [int(c) for c in getattr(experience, attribute) or ()])
    if hasattr(experience, "task_labels"):
        made.task_labels = [int(label) for label in experience.task_labels]
        if len(made.task_labels) == 1:
            made.task_label = made.task_labels[0]
    return made


def task_label(experience: CLExperience) -> int:
    """Return the task label of an experience, 0 where it has none; raise ValueError if it has several."""
    labels = sorted({int(label) for label in getattr(experience, "task_labels", [0])})
    if len(labels) != 1:
        raise ValueError(f"Experience {experience.current_experience} has the task labels {labels}: one is needed.")
    return labels[0]


def _cut(data: ExperienceData, groups: TransformGroups, training: bool) -> TaskAwareSupervisedClassificationDataset:
    if isinstance(data.dataset, RebuildableDataset):
        dill.register(type(data.dataset))(_save_in_checkpoint)
    dataset = TaskAwareSupervisedClassificationDataset(
        [data.dataset],
        indices=list(data.indices),
        data_attributes=[
            DataAttribute(data.dataset.targets, "targets"),
            TaskLabels(ConstantSequence(data.task_label, len(data.dataset))),
        ],
        transform_groups=TransformGroups(dict(groups.transform_groups)),
    )
    dataset = with_layers(dataset, data.layers)
    return dataset.train() if training else dataset.eval()


def _classes_of(experiences: Sequence[ExperienceData]) -> list[int]:
    """Return each class once, in order of arrival."""
    return list(dict.fromkeys(c for experience in experiences for c in experience.classes))


def _save_in_checkpoint(pickler: dill.Pickler, dataset: RebuildableDataset) -> None:
    """Avalanche's checkpoints store ``dataset`` as its constructor's arguments, and share it when they are read."""
    constructor_based_serialization(
        pickler, dataset, type(dataset), deduplicate=True, kwargs=dataset.constructor_arguments()
    )
