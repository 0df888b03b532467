"""The builder of the domain-incremental benchmarks: the same classes in every experience, another domain in each."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ftp_cl.benchmarks._checks import class_indices
from ftp_cl.benchmarks._dataset import NamedDataset
from ftp_cl.benchmarks.class_incremental import Split, indices_by_class
from ftp_cl.benchmarks.scenario import DescribedScenario, ExperienceData, make_stream, transform_groups


@dataclass(frozen=True)
class DomainSplit(Split):
    """How domains become experiences: what the domain-incremental benchmarks have in common.

    Attributes:
        seed: draws the validation items, the shots and the labels that are kept; the other attributes as in ``Split``.
    """

    seed: int


def split_domains(
    name: str, domains: Mapping[str, tuple[NamedDataset, NamedDataset]], split: DomainSplit, settings: Mapping[str, Any]
) -> DescribedScenario:
    """Make streams ``train``, ``test`` and, if asked for, ``validation`` with one experience per domain.

    Args:
        name: of the benchmark, for its description.
        domains: in order of arrival: what to train on, and what to test on; both have the same classes.
        split: how to cut.
        settings: what to record on top of ``split``.

    Raises:
        ValueError: as ``draw_identities``, or for domains whose classes differ or that lack data to train or test on.
    """
    names = list(next(iter(domains.values()))[0].classes)
    classes = list(range(len(names)))
    streams: dict[str, list[ExperienceData]] = {"train": [], "test": [], "validation": []}
    for number, (domain, (train, test)) in enumerate(domains.items()):
        if list(train.classes) != names or list(test.classes) != names:
            raise ValueError(f"The classes of the domain {domain} are not those of the first domain.")
        for part, dataset in (("train", train), ("test", test)):
            if not len(dataset):
                raise ValueError(f"The domain {domain} has nothing to {part} on.")
        class_indices(f"The test data of the domain {domain}", test.targets, len(names))
        # A domain may lack a class (DomainNet's do), which is then neither drawn from nor counted as too small.
        present = {name: indices for name, indices in indices_by_class(train).items() if indices}
        training, validation = (chain(*part.values()) for part in split.draw(present, split.seed))
        label = number if split.return_task_id else 0
        for stream, dataset, indices in (("train", train, training), ("validation", train, validation)):
            streams[stream].append(ExperienceData(dataset, sorted(indices), classes, label))
        streams["test"].append(ExperienceData(test, range(len(test)), classes, label))
    if split.validation_fraction is None:
        del streams["validation"]
    groups = transform_groups(split.train_transform, split.eval_transform)
    described = [{"domain": domain, "classes": list(classes), "names": list(names)} for domain in domains]
    return DescribedScenario(
        [make_stream(stream, experiences, groups) for stream, experiences in streams.items()],
        {"benchmark": name, **split.settings(), **settings, "experiences": described},
    )
