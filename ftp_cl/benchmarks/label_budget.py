"""few_labels: any benchmark with few labelled images, and the others beside them without labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral

from avalanche.benchmarks.scenarios import CLExperience, CLScenario, CLStream, DatasetExperience

from ftp_cl.benchmarks._checks import check_seed, class_indices, generator_of
from ftp_cl.benchmarks._copies import copy_items, sources_of
from ftp_cl.benchmarks._same_images import have_identities, images_of, keys_of
from ftp_cl.benchmarks._sources import HIDDEN
from ftp_cl.benchmarks.ood import describe, stream_of
from ftp_cl.benchmarks.scenario import TIMELINE, DescribedScenario, experience_like, stream_from

UNLABELLED = "unlabelled"
"""Name of the stream of images whose labels are hidden."""


def few_labels(
    benchmark: CLScenario,
    /,
    *,
    per_class: int | None = None,
    fraction: float | None = None,
    allow_fewer: bool = False,
    seed: int = 0,
    unlabelled: CLScenario | None = None,
) -> DescribedScenario:
    """Keep few labels of each class of each training experience; a stream ``unlabelled`` has the other images.

    The labels that are kept are drawn anew for each experience and class, each by a generator of its own. For one
    ``seed`` a smaller budget is a subset of a larger one. ``unlabelled`` has as many experiences as ``train``; its
    items are shuffled, because sorted images would tell their classes, and have the label -1.

    **No hidden label is stored in the result.** Whatever shares data with the training stream (the validation
    stream often does) or with the unlabelled images is copied into memory, inputs and kept labels alone, and all
    streams are new objects. The original benchmark is not changed, and whoever holds it has the labels:
    ``hidden_labels`` takes them from there. This guards against mistakes, not against one who works labels out from the
    draw that ``description`` records.
    Memory: of this package's data sets of image files, that of the files or of the decoded images, whichever is less
    (4 GB for DomainNet's real images); of others, that of the decoded images. Transforms that belong to the source
    itself (torchvision's ``transform=``) are applied once, at the copy: give random ones to the benchmark.

    Args:
        benchmark: of this package or of Avalanche, with a stream ``train``.
        per_class: labels of each class in each experience, 1 or more.
        fraction: share of labels instead, between 0 and 1, both excluded; rounded, one of each class at least.
        allow_fewer: a class with fewer images than ``per_class`` keeps all its labels; otherwise that is refused.
        seed: draws the labels that are kept, 0 or more.
        unlabelled: another benchmark whose training images to take without labels, for instance in another style;
            None for those of ``benchmark`` whose labels are not kept. Its experiences must have the same classes. No
            image that ``benchmark`` evaluates on may be among them: images are compared by what this package's data
            sets say of them (the emoji, the place in the published files), own folders by the content of files, and
            all others by their pixels.

    Returns:
        The benchmark's streams and ``unlabelled``. ``description["labels"]`` records the budget and the labelled images
        by their index in each training experience of ``benchmark``.

    Raises:
        ValueError: in one sentence, for a budget that is out of range or more than a class has, an ``unlabelled``
            stream that would have an empty experience, one whose experiences do not fit or that has images of another
            stream of ``benchmark`` than ``train``, or one that is there already.
    """
    choices = _choose(benchmark, unlabelled, per_class, fraction, allow_fewer, seed)
    if unlabelled is not None:
        _check_unlabelled(benchmark, unlabelled)
    train = stream_of(benchmark, "train")
    # Streams whose data are apart from those of training, such as the test stream, need no copy.
    with_labels = [*train, *(choice.source for choice in choices)]
    training_sources = set().union(*(sources_of(experience.dataset) for experience in with_labels))
    streams = []
    for name, stream in benchmark.streams.items():
        if name == "train":
            made = [_copied(experience, choice.labelled) for experience, choice in zip(train, choices, strict=True)]
        else:
            made = [_detached(experience, training_sources) for experience in stream]
        streams.append(stream_from(name, made, getattr(stream, "kind", None)))
    streams.append(stream_from(UNLABELLED, [_hidden(choice) for choice in choices]))
    record = {
        "per_class": None if per_class is None else int(per_class),
        "fraction": None if fraction is None else float(fraction),
        "seed": int(seed),
        "unlabelled": "rest" if unlabelled is None else describe(unlabelled),
        "labelled": [choice.labelled for choice in choices],
    }
    return DescribedScenario(streams, {**describe(benchmark), "labels": record})


def hidden_labels(
    benchmark: CLScenario,
    /,
    *,
    per_class: int | None = None,
    fraction: float | None = None,
    allow_fewer: bool = False,
    seed: int = 0,
    unlabelled: CLScenario | None = None,
) -> list[list[int]]:
    """Return what ``few_labels`` of the same arguments hides: the class index of each unlabelled item, per experience.

    For evaluation only (the precision of pseudo-labels): keep it where no strategy, plugin or model refers to it.
    """
    choices = _choose(benchmark, unlabelled, per_class, fraction, allow_fewer, seed)
    return [[int(choice.source.dataset.targets[index]) for index in choice.unlabelled] for choice in choices]


@dataclass(frozen=True)
class _Choice:
    """What one experience becomes: its labelled items, and unlabelled ones of ``source``, both as indices."""

    labelled: list[int]
    source: CLExperience
    unlabelled: list[int]


def _choose(
    benchmark: CLScenario,
    other: CLScenario | None,
    per_class: int | None,
    fraction: float | None,
    allow_fewer: bool,
    seed: int,
) -> list[_Choice]:
    if (per_class is None) == (fraction is None):
        raise ValueError("few_labels needs per_class or fraction, one of them.")
    if per_class is not None and (not isinstance(per_class, Integral) or per_class < 1):
        raise ValueError(f"per_class={per_class} must be a whole number of at least 1.")
    if fraction is not None and not 0 < fraction < 1:
        raise ValueError(f"fraction={fraction} must lie between 0 and 1, both excluded.")
    check_seed(seed)
    if UNLABELLED in benchmark.streams:
        raise ValueError(
            f"The benchmark has a stream {UNLABELLED!r} already: keep few labels of the one that it was made from."
        )
    train = stream_of(benchmark, "train")
    sources = train if other is None else _fitting(train, stream_of(other, "train"))
    choices = []
    for number, (experience, source) in enumerate(zip(train, sources, strict=True)):
        members: dict[int, list[int]] = {}
        for index, target in enumerate(class_indices(f"Experience {number}", experience.dataset.targets, None)):
            members.setdefault(target, []).append(index)
        labelled = []
        for target, indices in sorted(members.items()):
            count = len(indices) if per_class is None else per_class
            if count > len(indices) and not allow_fewer:
                raise ValueError(
                    f"per_class={per_class} is more than the {len(indices)} training images of class {target} in "
                    f"experience {number}: use {len(indices)} or fewer, or allow_fewer=True to keep all of such a "
                    "class."
                )
            count = count if fraction is None else max(1, round(fraction * len(indices)))
            order = generator_of(seed, number, target).permutation(len(indices))
            labelled += [indices[i] for i in order[:count]]
        labelled.sort()
        taken = set(labelled) if other is None else set()
        rest = [index for index in range(len(source.dataset)) if index not in taken]
        if not rest:
            raise ValueError(f"No unlabelled image is left in experience {number}: keep fewer labels.")
        order = generator_of(seed, number).permutation(len(rest))
        choices.append(_Choice(labelled, source, [rest[i] for i in order]))
    return choices


def _check_unlabelled(benchmark: CLScenario, other: CLScenario) -> None:
    """Images that the benchmark evaluates on must not be unlabelled ones, whichever option brought them there."""
    evaluated = {name: images_of(stream) for name, stream in benchmark.streams.items() if name != "train"}
    trained, unlabelled = images_of(benchmark.streams["train"]), images_of(other.streams["train"])
    by_pixels = not have_identities([*trained, *unlabelled, *chain(*evaluated.values())])
    # What the benchmark trains on, too, is a duplicate in its data, which this does not add.
    added = keys_of(unlabelled, by_pixels) - keys_of(trained, by_pixels)
    for name, images in evaluated.items():
        if added & keys_of(images, by_pixels):
            mine, its = describe(benchmark), describe(other)
            differ = [key for key in ("validation_fraction", "seed", "division") if mine.get(key) != its.get(key)]
            advice = "leave them out of one of the two."
            if differ:
                settings = f"{differ[0]}={its.get(differ[0])} and the labelled one {mine.get(differ[0])}"
                advice = f"the unlabelled benchmark has {settings}, give both the same."
            raise ValueError(f"Images of the stream {name!r} are among the unlabelled ones: {advice}")


def _fitting(train: CLStream, other: CLStream) -> CLStream:
    if len(train) != len(other):
        raise ValueError(
            f"The unlabelled benchmark has {len(other)} training experiences and the labelled one {len(train)}: "
            "give both the same."
        )
    for number, (mine, its) in enumerate(zip(train, other, strict=True)):
        classes, others = (sorted({int(target) for target in e.dataset.targets}) for e in (mine, its))
        if classes != others:
            raise ValueError(
                f"Experience {number} has the classes {classes} with labels and {others} without: build both "
                "benchmarks with the same class order."
            )
    return other


# ---- new experiences and streams -----------------------------------------------------------------------------------


def _copied(experience: CLExperience, indices: Sequence[int]) -> DatasetExperience:
    return experience_like(experience, copy_items(experience.dataset, indices, hide=False))


def _detached(experience: CLExperience, training_sources: set[int]) -> DatasetExperience:
    if sources_of(experience.dataset) & training_sources:
        return _copied(experience, range(len(experience.dataset)))
    return experience_like(experience, experience.dataset)


def _hidden(choice: _Choice) -> DatasetExperience:
    dataset = copy_items(choice.source.dataset, choice.unlabelled, hide=True)
    hidden = experience_like(choice.source, dataset.eval())
    for attribute in TIMELINE:
        setattr(hidden, attribute, [HIDDEN])
    return hidden
