"""domainnet and domainnet_domains: 345 classes in six styles, class by class or style by style."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Unpack

from ftp_cl.benchmarks._checks import Size, check_choice, check_choices, check_domains, composed
from ftp_cl.benchmarks.download import data_root
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, read_lines
from ftp_cl.benchmarks.options import (
    ClassOptions,
    DescribedScenario,
    ImageOptions,
    class_benchmark,
    domain_benchmark,
    takes,
)

DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
"""The six domains."""

_N_CLASSES = 345
_PAGE = "https://ai.bu.edu/M3SDA/"
_REFERENCE = "https://github.com/GT-RIPL/FTP"
_SPLITS = ("train", "test", "validation")


class DomainNet(ImageFiles):
    """One or several domains of DomainNet by their published lists; images are decoded when they are read.

    An item is ``(image, target)``, see ``ImageFiles``.

    Args:
        root: holds the lists ``<domain>_train.txt`` and ``<domain>_test.txt``, whose lines are
            ``real/aircraft_carrier/real_001_000001.jpg 0``, and the images under these paths.
        domain: one of ``DOMAINNET_DOMAINS`` or several, which are appended in the order given.
        split: ``"train"`` or ``"test"``, or of ``split_lists`` also ``"validation"``.
        size: side of the images in pixels; None for as they are.
        classes: the class names, if these lists lack some; None to take them from the paths, ``(class 7)`` where the
            lists have no image of class 7.
        split_lists: the folder ``datasets/domainnet`` of FTP's released code, whose lists are read instead:
            ``<domain>_train_<percent>_percent_split.txt``, the same with ``val`` and, for 100 percent, without the
            percentage; and ``<domain>_test.txt``, which may lie in ``root``, too.
        percent: which of them; 1, 5, 10, 20, 50 and 100 are released for ``real``.

    Raises:
        FileNotFoundError: if a list, or an image that a list names, is missing. DomainNet is not downloaded
            automatically: it has no published checksums.
        ValueError: for an unknown domain or split, or a line of a list that is wrong.

    Source:
        Peng et al., "Moment Matching for Multi-Source Domain Adaptation", ICCV 2019, arXiv 1812.01754; the cleaned
        version of the lists and images. Lists for fine-tuning: Tian et al., "Trainable Projected Gradient Method for
        Robust Fine-Tuning", CVPR 2023, arXiv 2303.10720, and FTP (arXiv 2310.19182), released code.
    """

    def __init__(
        self,
        root: str | Path,
        domain: str | Sequence[str],
        split: str,
        size: Size | None = 224,
        classes: Sequence[str] | None = None,
        split_lists: str | Path | None = None,
        percent: float = 100,
    ) -> None:
        self.domain = check_choices("domain", domain, DOMAINNET_DOMAINS)
        self.split_lists = None if split_lists is None else Path(split_lists).expanduser()
        check_choice("split", split, _SPLITS[:2] if split_lists is None else _SPLITS)
        self.parent, self.split, self.percent = Path(root), split, percent
        names: dict[int, str] = {}
        files = [_list_of(self.parent, name, split, self.split_lists, percent) for name in self.domain]
        items = [
            item
            for name, file in zip(self.domain, files, strict=True)
            for item in _read_list(self.parent, name, file, names)
        ]
        if classes is None:
            classes = [names.get(target, f"(class {target})") for target in range(max(names, default=-1) + 1)]
        self._set_files(self.parent, items, classes, size)


def _list_of(root: Path, domain: str, split: str, split_lists: Path | None, percent: float) -> Path:
    published = root / f"{domain}_{split}.txt"
    if split_lists is None:
        found = [published]
        advice = f"get {published.name} and {domain}.zip from {_PAGE} and extract the archive in {root}"
    elif split == "test":
        found = [split_lists / published.name, published]
        advice = f"get it from {_REFERENCE}, datasets/domainnet, or from {_PAGE}"
    else:
        part = f"{domain}_{'val' if split == 'validation' else split}"
        found = [split_lists / f"{part}_{percent:g}_percent_split.txt"]
        found += [split_lists / f"{part}_split.txt"] if percent == 100 else []
        advice = f"{_REFERENCE}, datasets/domainnet, has lists of the domain real for 1, 5, 10, 20, 50 and 100 percent"
    for path in found:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{found[0]} is missing: {advice}.")


def _read_list(root: Path, domain: str, path: Path, names: dict[int, str]) -> list[tuple[str, int]]:
    """Return the (path, class index) of each line of a list, and add to ``names`` what its classes are called."""
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
    split_lists: str | Path | None = None,
    size: Size = 224,
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
            image at least. A smaller share is a subset of a larger one. With ``split_lists``, which list is read.
        split_lists: the folder ``datasets/domainnet`` of FTP's released code, to train, validate and test by its lists,
            see ``DomainNet``; there is a validation stream then, drawn or by its list. None for the published lists.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        dataset_root: holds the lists and images, see ``DomainNet``; None for ~/.avalanche/data/domainnet.
        options: see ``ClassOptions``.
    """
    trained, others = check_domains(train_domains, ood_domains, DOMAINNET_DOMAINS)
    root = data_root(dataset_root, "domainnet")
    train, test, *validation = _parts(root, trained, size, split_lists, label_percent)
    settings: dict[str, Any] = {"train_domains": list(trained), "ood_domains": list(others), "size": size}
    if split_lists is not None:
        settings |= {"split_lists": str(split_lists), "label_percent": label_percent}
        label_percent = 100
    return class_benchmark(
        "domainnet",
        train,
        test,
        settings,
        {domain: DomainNet(root, domain, "test", size, split_lists=split_lists) for domain in others},
        *validation,
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
    size: Size = 224,
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
    parts = {name: _parts(root, name, size) for name in trained}
    _share_classes([part for both in parts.values() for part in both])
    domains = {name: (train, test) for name, (train, test) in parts.items()}
    settings = {"ood_domains": list(others), "size": size}
    ood = {name: DomainNet(root, name, "test", size) for name in others}
    return domain_benchmark(
        "domainnet_domains", domains, settings, ood, seed=seed, label_percent=label_percent, **options
    )


def _parts(
    root: Path, domain: str | Sequence[str], size: Size, split_lists: str | Path | None = None, percent: float = 100
) -> list[DomainNet]:
    """What to train and to test on, and by ``split_lists`` to validate on; the same classes, no image in two parts."""
    splits = _SPLITS[:2] if split_lists is None else _SPLITS
    parts = [DomainNet(root, domain, split, size, None, split_lists, percent) for split in splits]
    for one, other in combinations(parts, 2):
        if both := sorted({*one.paths} & {*other.paths}):
            raise ValueError(
                f"{both[0]} is in the {one.split} list and in the {other.split} list of its domain in "
                f"{root if split_lists is None else split_lists}: remove it from one of them."
            )
    _share_classes(parts)
    return parts


def _share_classes(datasets: Sequence[DomainNet]) -> None:
    """Give all the classes that any has, because a list may lack some; raise ValueError where one has two names."""
    named: dict[int, tuple[str, DomainNet]] = {}
    for dataset in datasets:
        for target in set(dataset.targets):
            name = dataset.classes[target]
            before, other = named.setdefault(target, (name, dataset))
            if name != before:
                raise ValueError(
                    f"Class {target} is {before} in the {other.split} lists of {', '.join(other.domain)}, but {name} "
                    f"in the {dataset.split} lists of {', '.join(dataset.domain)}."
                )
    classes = [named[c][0] if c in named else f"(class {c})" for c in range(max(named, default=-1) + 1)]
    for dataset in datasets:
        dataset.classes = list(classes)
