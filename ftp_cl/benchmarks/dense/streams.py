"""Streams of images with masks: classes or domains one after another, unseen domains and corruptions as OOD streams."""

from collections.abc import Mapping, Sequence
from typing import Any

from avalanche.benchmarks.utils import TransformGroups
from avalanche.benchmarks.utils.transforms import MultiParamTransformCallable
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks.class_incremental import draw_class_order
from ftp_cl.benchmarks.corruptions import with_corruptions
from ftp_cl.benchmarks.dense.masks import BACKGROUND, MaskDataset, OneExperiencesMasks
from ftp_cl.benchmarks.scenario import OOD, DescribedScenario, ExperienceData, make_stream, transform_groups

Parts = Mapping[str, Any]
"""The images of one domain, or of all: "train", "test", and "validation" where there are some to choose values by."""


def mask_classes(
    data: Parts,
    n_experiences: int,
    seed: int,
    ood: Mapping[str, Any],
    settings: Mapping[str, Any],
    fixed_class_order: Sequence[int] | None = None,
    **corruptions: Any,
) -> DescribedScenario:
    """Class-incremental segmentation in the "overlapped" setting; one experience is training on all classes at once.

    A training experience has every image with a pixel of its classes, and masks of these alone
    (``OneExperiencesMasks``). In all other streams each experience has all images with their whole masks, for a
    prediction may be wrong anywhere: what belongs to an experience are its classes. Of these the background is one
    of the first.

    Args:
        data: whose classes arrive.
        n_experiences: a divisor of the number of classes without the background.
        seed: draws the class order.
        ood: name -> images for a stream ``ood_<name>``.
        settings: what to record.
        fixed_class_order: class indices from 1 in order of arrival, instead of the order drawn.
        corruptions: of test images, as ``with_corruptions`` takes them.

    Raises:
        ValueError: if ``n_experiences`` does not fit, an experience has no image, or the order is none of all classes.
    """
    names = data["train"].classes
    n_classes = len(names) - 1
    if n_experiences < 1 or n_classes % n_experiences:
        raise ValueError(f"n_experiences={n_experiences} does not divide the {n_classes} classes.")
    given = None if fixed_class_order is None else [label - 1 for label in fixed_class_order]
    order = [label + 1 for label in draw_class_order(n_classes, seed, given)]
    size = n_classes // n_experiences
    classes = [order[i : i + size] for i in range(0, n_classes, size)]
    classes[0] = [BACKGROUND, *classes[0]]
    streams: dict[str, list[ExperienceData]] = {}
    for name, source in {**data, **{f"ood_{name}": source for name, source in ood.items()}}.items():
        if name == "train" and n_experiences > 1:
            streams[name] = [_annotated_with(source, own) for own in classes]
        else:
            streams[name] = [ExperienceData(source, range(len(source)), own) for own in classes]
    return _scenario(streams, classes, names, {"n_experiences": n_experiences, **settings}, corruptions)


def mask_domains(
    domains: Sequence[Parts], ood: Mapping[str, Any], settings: Mapping[str, Any], **corruptions: Any
) -> DescribedScenario:
    """Domain-incremental segmentation: all classes in every experience.

    Args:
        domains: in order of arrival, with the same classes.
        ood: as for ``mask_classes``; each such stream has one experience.
        settings: what to record.
        corruptions: as for ``mask_classes``.
    """
    names = domains[0]["train"].classes
    classes = [list(range(len(names)))] * len(domains)
    streams: dict[str, list[ExperienceData]] = {}
    for domain in domains:
        for name, source in domain.items():
            streams.setdefault(name, []).append(ExperienceData(source, range(len(source)), classes[0]))
    for name, source in ood.items():
        streams[f"ood_{name}"] = [ExperienceData(source, range(len(source)), classes[0])]
    return _scenario(streams, classes, names, settings, corruptions)


def joint_groups(train: Any) -> TransformGroups:
    """Return Avalanche's groups of transforms: one of image and target together in training, none otherwise."""
    return TransformGroups({"train": MultiParamTransformCallable(train), "eval": (None, None)})


def _annotated_with(source: MaskDataset, classes: Sequence[int]) -> ExperienceData:
    own = [label for label in classes if label != BACKGROUND]
    if not (indices := source.with_pixels_of(own)):
        raise ValueError(f"No training image has a pixel of {', '.join(source.classes[label] for label in own)}.")
    return ExperienceData(OneExperiencesMasks(source, own), indices, classes)


def _scenario(
    streams: Mapping[str, Sequence[ExperienceData]],
    classes: Sequence[Sequence[int]],
    names: Sequence[str],
    settings: Mapping[str, Any],
    corruptions: Mapping[str, Any],
) -> DescribedScenario:
    groups = transform_groups(to_tensor, to_tensor)
    made = [
        make_stream(name, experiences, groups, OOD if name.startswith("ood_") else None)
        for name, experiences in streams.items()
    ]
    # Experiences of the same images have the same dataset, so that evaluations can tell and go through it once.
    for stream in made:
        first: dict[int, Any] = {}
        for experience in stream:
            source = streams[stream.name][experience.current_experience].dataset
            experience._dataset = first.setdefault(id(source), experience.dataset)
    described = [{"classes": list(own), "names": [names[label] for label in own]} for own in classes]
    target = "masks" if names else "normals"
    description = {**settings, "target": target, "class_names": list(names), "experiences": described}
    return with_corruptions(DescribedScenario(made, description), **corruptions)
