"""domainnet and domainnet_domains: 345 classes in six styles, class by class or style by style."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ftp_cl.benchmarks._checks import check_choice, check_choices, check_domains, composed
from ftp_cl.benchmarks.download import data_root
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, read_lines
from ftp_cl.benchmarks.options import ClassOptions, ImageOptions, class_benchmark, domain_benchmark, takes

if TYPE_CHECKING:
    from typing import Unpack

    from ftp_cl.benchmarks.scenario import DescribedScenario

DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
"""The six domains."""

_N_CLASSES = 345
_PAGE = "https://ai.bu.edu/M3SDA/"
_SPLITS = ("train", "test")


class DomainNet(ImageFiles):
    """One or several domains of DomainNet by their published lists; images are decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``.

    Args:
        root: holds the lists ``<domain>_train.txt`` and ``<domain>_test.txt``, whose lines are
            ``real/aircraft_carrier/real_001_000001.jpg 0``, and the images under these paths.
        domain: one of ``DOMAINNET_DOMAINS`` or several, which are appended in the order given.
        split: ``"train"`` or ``"test"``.
        size: side of the images in pixels; None for as they are.
        classes: the class names, if these lists lack some; None to take them from the paths, ``(class 7)`` where the
            lists have no image of class 7.

    Raises:
        FileNotFoundError: if a list, or an image that a list names, is missing. DomainNet is not downloaded
            automatically: it has no published checksums.
        ValueError: for an unknown domain or split, or a line of a list that is wrong.

    Source:
        Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019, arXiv 1812.01754; the cleaned
        version of the lists and images.
    """

    def __init__(
        self,
        root: str | Path,
        domain: str | Sequence[str],
        split: str,
        size: int | None = 224,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.domain = check_choices("domain", domain, DOMAINNET_DOMAINS)
        check_choice("split", split, _SPLITS)
        self.parent, self.split = Path(root), split
        names: dict[int, str] = {}
        items = [item for name in self.domain for item in _read_list(self.parent, name, split, names)]
        if classes is None:
            classes = [names.get(target, f"(class {target})") for target in range(max(names, default=-1) + 1)]
        self._set_files(self.parent, [path for path, _ in items], [target for _, target in items], classes, size)


def _read_list(root: Path, domain: str, split: str, names: dict[int, str]) -> list[tuple[str, int]]:
    """Return the (path, class index) of each line of a list, and add to ``names`` what its classes are called."""
    path = root / f"{domain}_{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: get {domain}_{split}.txt and {domain}.zip from {_PAGE} and extract the archive in "
            f"{root}."
        )
    index_of = {name: index for index, name in names.items()}
    items: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        image, _, label = line.strip().rpartition(" ")
        parts = image.split("/")
        if len(parts) != 3 or parts[0] != domain or not label.isdecimal():
            raise ValueError(f"{path}, line {number}: {line!r} is not '{domain}/<class>/<file> <class index>'.")
        if len(label) > 9 or int(label) >= _N_CLASSES:
            raise ValueError(
                f"{path}, line {number}: the class {label:.20} is none of DomainNet's, 0 to {_N_CLASSES - 1}."
            )
        name, target = composed(parts[1]), int(label)
        if names.setdefault(target, name) != name or index_of.setdefault(name, target) != target:
            raise ValueError(
                f"{path}, line {number}: {name} has the class {target}, but before class {target} was "
                f"{names[target]} and {name} was class {index_of.get(name, target)}."
            )
        if image in items:
            raise ValueError(f"{path}, line {number}: {image} stands in this list before.")
        items[image] = target
    check_files(root, items, named_by=path)
    return list(items.items())


@takes(ClassOptions)
def domainnet(
    n_experiences: int | Sequence[int] = 5,
    seed: int = 0,
    *,
    train_domains: str | Sequence[str] = "real",
    ood_domains: str | Sequence[str] | None = None,
    label_percent: float = 100,
    size: int = 224,
    dataset_root: str | Path | None = None,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """DomainNet, 345 classes: trained on one style with all labels or few, with the other styles as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, one ``ood_<domain>`` (the published test part) per
    other domain, and one ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        n_experiences: 1 (fine-tuning on all classes at once), 3, 5, 15, 23, 69, 115 or 345 (or a list of how many
            classes each has; see also ``first_exp_with_half_classes``).
        seed: draws the class order, the labels that are kept and the validation images, independently of each other.
        train_domains: domain or domains to train and test on; see ``DOMAINNET_DOMAINS``.
        ood_domains: domains of the OOD streams; None for all others, () for none.
        label_percent: share of the training images of each class to train on: 1, 5, 10, 20, 50 or 100 are usual; one
            image at least. A smaller share is a subset of a larger one.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        dataset_root: holds the lists and images, see ``DomainNet``; None for ~/.avalanche/data/domainnet.
        options: see ``ClassOptions``.
    """
    trained, others = check_domains(train_domains, ood_domains, DOMAINNET_DOMAINS)
    root = data_root(dataset_root, "domainnet")
    train, test = _both_parts(root, trained, size)
    return class_benchmark(
        "domainnet",
        train,
        test,
        {"train_domains": list(trained), "ood_domains": list(others), "size": size},
        {domain: DomainNet(root, domain, "test", size) for domain in others},
        n_experiences=n_experiences,
        seed=seed,
        label_percent=label_percent,
        **options,
    )


@takes(ImageOptions)
def domainnet_domains(
    train_domains: Sequence[str] = ("clipart", "infograph", "painting", "quickdraw", "real"),
    ood_domains: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    label_percent: float = 100,
    size: int = 224,
    dataset_root: str | Path | None = None,
    **options: Unpack[ImageOptions],
) -> DescribedScenario:
    """DomainNet style by style (domain-incremental): all 345 classes in every experience, unseen styles as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, with one experience per training domain; one
    ``ood_<domain>`` per other domain, with a single experience; and one ``ood_<corruption>_<severity>`` per corruption
    and severity.

    Args:
        train_domains: in order of arrival; see ``DOMAINNET_DOMAINS``.
        ood_domains: domains of the OOD streams; None for all others, () for none.
        seed: draws the labels that are kept, the shots and the validation images.
        label_percent: share of the training images of each class and domain to train on, one image at least.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        dataset_root: holds the lists and images, see ``DomainNet``; None for ~/.avalanche/data/domainnet.
        options: see ``ImageOptions``.
    """
    trained, others = check_domains(train_domains, ood_domains, DOMAINNET_DOMAINS)
    root = data_root(dataset_root, "domainnet")
    domains = {name: _both_parts(root, name, size) for name in trained}
    _share_classes([part for both in domains.values() for part in both])
    settings = {"ood_domains": list(others), "size": size}
    ood = {name: DomainNet(root, name, "test", size) for name in others}
    return domain_benchmark(
        "domainnet_domains", domains, settings, ood, seed=seed, label_percent=label_percent, **options
    )


def _both_parts(root: Path, domain: str | Sequence[str], size: int) -> tuple[DomainNet, DomainNet]:
    """What to train and to test on, with the same classes and no image in both."""
    train, test = (DomainNet(root, domain, part, size) for part in _SPLITS)
    if both := sorted({*train.paths} & {*test.paths}):
        raise ValueError(
            f"{both[0]} is in the train list and in the test list of its domain in {root}: remove it from one of them."
        )
    _share_classes([train, test])
    return train, test


def _share_classes(datasets: Sequence[DomainNet]) -> None:
    """Give all the classes that any has, because a list may lack some; raise ValueError where one has two names."""
    named: dict[int, tuple[str, DomainNet]] = {}
    for dataset in datasets:
        for target in set(dataset.targets):
            name, (before, other) = (
                dataset.classes[target],
                named.setdefault(target, (dataset.classes[target], dataset)),
            )
            if name != before:
                raise ValueError(
                    f"Class {target} is {before} in the {other.split} lists of {', '.join(other.domain)}, but {name} "
                    f"in the {dataset.split} lists of {', '.join(dataset.domain)}."
                )
    for dataset in datasets:
        dataset.classes = [
            named[target][0] if target in named else f"(class {target})" for target in range(max(named, default=-1) + 1)
        ]
