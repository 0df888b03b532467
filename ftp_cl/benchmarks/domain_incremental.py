"""The builder of the domain-incremental benchmarks: the same classes in every experience, another domain in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftp_cl.benchmarks._checks import class_indices
from ftp_cl.benchmarks._dataset import NamedDataset
from ftp_cl.benchmarks.class_incremental import Split, indices_by_class
from ftp_cl.benchmarks.scenario import DescribedScenario, ExperienceData, make_stream, transform_groups


@dataclass(frozen=True)
class Domain:
    """One domain: what to train on, and what to test on; both have the same classes."""

    train: NamedDataset
    test: NamedDataset


@dataclass(frozen=True)
class DomainSplit(Split):
    """How domains become experiences: what the domain-incremental benchmarks have in common.

    Attributes:
        seed: draws the validation items, the shots and the labels that are kept; the other attributes as in ``Split``.
    """

    seed: int


def split_domains(
    name: str, domains: Mapping[str, Domain], split: DomainSplit, settings: Mapping[str, Any]
) -> DescribedScenario:
    """Make streams ``train``, ``test`` and, if asked for, ``validation`` with one experience per domain.

    Args:
        name: of the benchmark, for its description.
        domains: in order of arrival.
        split: how to cut.
        settings: what to record on top of ``split``.

    Raises:
        ValueError: as ``draw_identities``, or for domains whose classes differ or that lack data to train or test on.
    """
    classes = next(iter(domains.values())).train.classes
    for domain, data in domains.items():
        if list(data.train.classes) != list(classes) or list(data.test.classes) != list(classes):
            raise ValueError(f"The classes of the domain {domain} are not those of the first domain.")
        for part, dataset in (("train", data.train), ("test", data.test)):
            if not len(dataset):
                raise ValueError(f"The domain {domain} has nothing to {part} on.")
        class_indices(f"The test data of the domain {domain}", data.test.targets, len(classes))
    drawn = [_draw(domain.train, split) for domain in domains.values()]
    streams = {
        "train": _experiences([d.train for d in domains.values()], [training for training, _ in drawn], split),
        "test": _experiences(
            [d.test for d in domains.values()], [list(range(len(d.test))) for d in domains.values()], split
        ),
    }
    if split.validation_fraction is not None:
        streams["validation"] = _experiences(
            [d.train for d in domains.values()], [validation for _, validation in drawn], split
        )
    groups = transform_groups(split.train_transform, split.eval_transform)
    return DescribedScenario(
        [make_stream(stream, experiences, groups) for stream, experiences in streams.items()],
        {
            "benchmark": name,
            **split.settings(),
            **settings,
            "experiences": [
                {"domain": domain, "classes": list(range(len(classes))), "names": list(classes)} for domain in domains
            ],
        },
    )


def _draw(dataset: NamedDataset, split: DomainSplit) -> tuple[list[int], list[int]]:
    """Return the indices to train on and to validate on."""
    # A domain may lack a class (DomainNet's do), which is then neither drawn from nor counted as too small.
    present = {name: indices for name, indices in indices_by_class(dataset).items() if indices}
    training, validation = split.draw(present, split.seed)
    return _sorted(training), _sorted(validation)


def _sorted(indices: Mapping[str, Sequence[int]]) -> list[int]:
    return sorted(index for members in indices.values() for index in members)


def _experiences(
    datasets: Sequence[NamedDataset], indices: Sequence[Sequence[int]], split: DomainSplit
) -> list[ExperienceData]:
    return [
        ExperienceData(
            dataset, chosen, list(range(len(dataset.classes))), task_label=number if split.return_task_id else 0
        )
        for number, (dataset, chosen) in enumerate(zip(datasets, indices, strict=True))
    ]
