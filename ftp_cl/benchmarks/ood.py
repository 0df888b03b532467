"""Out-of-distribution (OOD) streams for any benchmark: other datasets of the same classes."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from avalanche.benchmarks.scenarios import CLExperience, CLScenario, EagerCLStream

from ftp_cl.benchmarks._checks import check_choice, check_names, class_indices, composed
from ftp_cl.benchmarks._dataset import DerivedDataset, LabelledDataset, NamedDataset
from ftp_cl.benchmarks._sources import Layer, for_inputs_only, sources
from ftp_cl.benchmarks.scenario import (
    OOD,
    DescribedScenario,
    ExperienceData,
    Transform,
    make_stream,
    task_label,
    transform_groups,
)


def with_ood(
    benchmark: CLScenario,
    /,
    *,
    class_names: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    eval_transform: Transform | None = None,
    **datasets: NamedDataset,
) -> DescribedScenario:
    """Add a stream ``ood_<name>`` to a benchmark for each dataset given as ``name=dataset``.

    Each stream has the experiences of the test stream, with the same classes, task labels and timeline. **Classes are
    matched by name**, since the same index rarely means the same class in two datasets; items carry the benchmark's
    index. A dataset may have a part of the classes only (as ImageNet-A has of ImageNet): experiences of which it has
    nothing are left out of the stream. It may have others too: these items are left out, and the classes recorded.
    In a domain-incremental benchmark, whose experiences all have the same classes, the stream has one experience.

    Args:
        benchmark: of Avalanche, with a stream ``test``; it is not changed.
        class_names: name of each class index of the benchmark; needed only if the benchmark is none of this package.
        rename: name in a dataset -> name in the benchmark, where they differ.
        eval_transform: applied to the inputs of the datasets; None for what the test stream applies.
        datasets: each names its classes (``classes``) and lists the class index of each item (``targets``), as
            torchvision's do.

    Returns:
        The benchmark's streams and the new ones; its ``description`` records the classes of each OOD stream.

    Raises:
        ValueError: if a stream of that name exists, or no class of a dataset is one of the benchmark's (the message
            names the nearest), or the names of the benchmark's classes are needed and unknown.
    """
    names = _class_names(benchmark, class_names)
    test = list(stream_of(benchmark, "test"))
    layers = [_layers_of(experience) if eval_transform is None else [] for experience in test]
    groups = transform_groups(None, eval_transform)
    streams, recorded = [], {}
    for name, dataset in datasets.items():
        matched = _match_classes(name, dataset.classes, names, rename or {})
        targets = class_indices(f"The dataset {name!r}", dataset.targets, len(dataset.classes))
        streams.append(make_stream(f"ood_{name}", _cut_like(test, layers, dataset, targets, matched), groups, OOD))
        recorded[f"ood_{name}"] = {
            "classes": sorted(matched.values()),
            "left_out": [c for i, c in enumerate(dataset.classes) if i not in matched],
        }
    return add_streams(benchmark, streams, recorded)


def add_streams(
    benchmark: CLScenario, streams: Sequence[EagerCLStream], recorded: Mapping[str, Any]
) -> DescribedScenario:
    """Return a benchmark with more OOD streams; ``recorded`` is what its description says of each.

    Raises:
        ValueError: if a stream of one of the names exists.
    """
    for stream in streams:
        if stream.name in benchmark.streams:
            raise ValueError(f"The benchmark has a stream {stream.name!r} already: choose another name.")
    before = describe(benchmark)
    ood = {**before.get("ood", {}), **recorded}
    return DescribedScenario([*benchmark.streams.values(), *streams], {**before, "ood": ood})


def describe(benchmark: CLScenario) -> dict[str, Any]:
    """Return the description of a benchmark of this package, or the classes per experience of any other."""
    if isinstance(benchmark, DescribedScenario):
        return benchmark.description
    classes = [_classes_of(experience) for experience in stream_of(benchmark, "test")]
    return {"experiences": [{"classes": c, "names": [str(i) for i in c]} for c in classes]}


def stream_of(benchmark: CLScenario, name: str) -> EagerCLStream:
    """Return a stream of a benchmark; raise ValueError, naming the nearest, if it has none of that name."""
    check_choice("stream", name, list(benchmark.streams))
    return benchmark.streams[name]


def _classes_of(experience: CLExperience) -> list[int]:
    """Return the classes of an experience: those that it lists, or else those of its items."""
    listed = getattr(experience, "classes_in_this_experience", None)
    return sorted(map(int, experience.dataset.targets.uniques)) if listed is None else [int(c) for c in listed]


def _class_names(benchmark: CLScenario, given: Sequence[str] | None) -> dict[str, int]:
    if given is not None:
        check_names("class_names", given)
        return {composed(name): index for index, name in enumerate(given)}
    if not isinstance(benchmark, DescribedScenario):
        raise ValueError("The names of the benchmark's classes are unknown: give class_names=, one per class index.")
    experiences = benchmark.description["experiences"]
    return {composed(name): index for e in experiences for name, index in zip(e["names"], e["classes"], strict=True)}


def _match_classes(
    stream: str, classes: Sequence[str], names: Mapping[str, int], rename: Mapping[str, str]
) -> dict[int, int]:
    """Return class index in the dataset -> class index in the benchmark, for the classes that both have."""
    renamed = {composed(own): composed(theirs) for own, theirs in rename.items()}
    called = [renamed.get(composed(c), composed(c)) for c in classes]
    matched = {i: names[name] for i, name in enumerate(called) if name in names}
    near = {name.casefold(): name for name in names}
    for name in called:
        if name not in names and name.casefold() in near:
            raise ValueError(
                f"The class {name!r} of the dataset {stream!r} and {near[name.casefold()]!r} of the benchmark differ "
                "in capitals only: with_ood(..., rename={...}) says what it is."
            )
    check_names(f"the dataset {stream!r} that the benchmark has, too,", [classes[i] for i in matched])
    if not matched:
        first = called[0] if called else "(none)"
        nearest = difflib.get_close_matches(first, list(names), n=1, cutoff=0) or ["(none)"]
        raise ValueError(
            f"No class of the dataset {stream!r} is one of the benchmark's: its first is {first!r}, "
            f"the benchmark has for instance {nearest[0]!r}; with_ood(..., rename={{...}}) maps names."
        )
    return matched


def _cut_like(
    test: Sequence[CLExperience],
    layers: Sequence[list[Layer]],
    dataset: LabelledDataset,
    targets: Sequence[int],
    matched: Mapping[int, int],
) -> list[ExperienceData]:
    relabelled = dataset if all(a == b for a, b in matched.items()) else _Relabelled(dataset, dict(matched))
    by_class: dict[int, list[int]] = {}
    for index, target in enumerate(targets):
        if target in matched:
            by_class.setdefault(matched[target], []).append(index)
    experiences = []
    for experience, applied in zip(test, layers, strict=True):
        classes = _classes_of(experience)
        # Popped, so that where classes come again (domain-incremental) an item is in the first experience only.
        indices = sorted(index for c in classes for index in by_class.pop(c, ()))
        experiences.append(ExperienceData(relabelled, indices, classes, task_label(experience), applied))
    return experiences


class _Relabelled(DerivedDataset):
    """A dataset whose class indices are those of a benchmark; -1 for classes that the benchmark has not."""

    targets: Sequence[int] = ()

    def __init__(self, source: LabelledDataset, matched: dict[int, int]) -> None:
        self.source, self.matched = source, matched
        self.targets = [matched.get(int(target), -1) for target in source.targets]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.source[index][0], self.targets[index]


def _layers_of(experience: CLExperience) -> list[Layer]:
    """Return the transforms of the inputs of an experience; its labels are the benchmark's already."""
    found: list[list[Layer]] = []
    for source in sources(experience.dataset):
        if (layers := for_inputs_only(source.layers)) not in found:
            found.append(layers)
    if len(found) > 1:
        raise ValueError(
            f"Test experience {experience.current_experience} applies {len(found)} different transforms to its images: "
            "say with eval_transform= which the other datasets get."
        )
    return found[0] if found else []
