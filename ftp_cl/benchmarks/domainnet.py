"""domainnet and domainnet_domains: 345 classes in six styles, class by class or style by style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks._checks import check_choice, check_choices, check_domains, composed
from ftp_cl.benchmarks.download import data_root
from ftp_cl.benchmarks.image_files import ImageFiles, check_files, read_lines

if TYPE_CHECKING:
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

    def constructor_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that make an equal dataset."""
        names = ("domain", "split", "size", "classes")
        return {"root": self.parent, **{name: getattr(self, name) for name in names}}


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


def domainnet(
    n_experiences: int = 5,
    seed: int = 0,
    *,
    train_domains: str | Sequence[str] = "real",
    ood_domains: str | Sequence[str] | None = None,
    label_percent: float = 100,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
    corruption_cache: str | Path | None = None,
    size: int = 224,
    shots: int | None = None,
    validation_fraction: float | None = None,
    fixed_class_order: Sequence[int] | None = None,
    first_exp_with_half_classes: bool = False,
    return_task_id: bool = False,
    train_transform: Callable[[Any], Any] | None = to_tensor,
    eval_transform: Callable[[Any], Any] | None = to_tensor,
    dataset_root: str | Path | None = None,
) -> DescribedScenario:
    """DomainNet, 345 classes: trained on one style with all labels or few, with the other styles as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, one ``ood_<domain>`` (the published test part) per
    other domain, and one ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        n_experiences: 1 (fine-tuning on all classes at once), 3, 5, 15, 23, 69, 115 or 345 (see also
            ``first_exp_with_half_classes``).
        seed: draws the class order, the labels that are kept and the validation images, independently of each other.
        train_domains: domain or domains to train and test on; see ``DOMAINNET_DOMAINS``.
        ood_domains: domains of the OOD streams; None for all others, () for none.
        label_percent: share of the training images of each class to train on: 1, 5, 10, 20, 50 or 100 are usual; one
            image at least. A smaller share is a subset of a larger one.
        corruptions: names of ``CORRUPTIONS``, or "all"; None for none.
        severities: 1 (weak) to 5.
        corruption_cache: where to keep corrupted images; None keeps none.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        shots: training images per class, instead of a percentage; None for all.
        validation_fraction: share of each class's training images that is set aside; None for none.
        fixed_class_order: the class indices in order of arrival, instead of the order drawn.
        first_exp_with_half_classes: half of the classes arrive first, the others in n_experiences - 1 equal parts.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image of size x size; the default is a float tensor [3, size, size] in [0, 1], for
            the models of this package normalise their inputs themselves.
        eval_transform: the same for evaluation.
        dataset_root: holds the lists and images, see ``DomainNet``; None for ~/.avalanche/data/domainnet.

    Returns:
        An Avalanche scenario; its ``description`` records the settings, classes and sizes.

    Raises:
        FileNotFoundError: in one sentence, if data is missing.
        ValueError: in one sentence, for an argument that is out of range or a line of a list that is wrong.
    """
    # Importing Avalanche takes seconds, which users of the dataset alone need not wait.
    from ftp_cl.benchmarks.class_incremental import ClassSplit, split_classes
    from ftp_cl.benchmarks.corruptions import with_corruptions
    from ftp_cl.benchmarks.ood import with_ood

    trained, others = check_domains(train_domains, ood_domains, DOMAINNET_DOMAINS)
    root = data_root(dataset_root, "domainnet")
    train, test = _both_parts(root, trained, size)
    split = ClassSplit(
        n_experiences,
        seed,
        shots=shots,
        label_percent=label_percent,
        validation_fraction=validation_fraction,
        fixed_class_order=fixed_class_order,
        first_exp_with_half_classes=first_exp_with_half_classes,
        return_task_id=return_task_id,
        train_transform=train_transform,
        eval_transform=eval_transform,
    )
    settings = {"train_domains": list(trained), "ood_domains": list(others), "size": size}
    benchmark = split_classes("domainnet", train, test, split, settings)
    ood: dict[str, Any] = {domain: DomainNet(root, domain, "test", size) for domain in others}
    return with_corruptions(with_ood(benchmark, **ood), corruptions or (), severities, cache=corruption_cache)


def domainnet_domains(
    train_domains: Sequence[str] = ("clipart", "infograph", "painting", "quickdraw", "real"),
    ood_domains: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    label_percent: float = 100,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
    corruption_cache: str | Path | None = None,
    size: int = 224,
    shots: int | None = None,
    validation_fraction: float | None = None,
    return_task_id: bool = False,
    train_transform: Callable[[Any], Any] | None = to_tensor,
    eval_transform: Callable[[Any], Any] | None = to_tensor,
    dataset_root: str | Path | None = None,
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
        corruptions: names of ``CORRUPTIONS``, or "all"; None for none.
        severities: 1 (weak) to 5.
        corruption_cache: where to keep corrupted images; None keeps none.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        shots: training images per class and domain, instead of a percentage; None for all.
        validation_fraction: share of each class's training images that is set aside; None for none.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image of size x size; the default is a float tensor [3, size, size] in [0, 1].
        eval_transform: the same for evaluation.
        dataset_root: holds the lists and images, see ``DomainNet``; None for ~/.avalanche/data/domainnet.

    Returns:
        An Avalanche scenario; its ``description`` records the settings, classes and sizes.

    Raises:
        FileNotFoundError: in one sentence, if data is missing.
        ValueError: in one sentence, for an argument that is out of range or a line of a list that is wrong.
    """
    # Importing Avalanche takes seconds, which users of the dataset alone need not wait.
    from ftp_cl.benchmarks.corruptions import with_corruptions
    from ftp_cl.benchmarks.domain_incremental import Domain, DomainSplit, split_domains
    from ftp_cl.benchmarks.ood import with_ood

    trained, others = check_domains(train_domains, ood_domains, DOMAINNET_DOMAINS)
    root = data_root(dataset_root, "domainnet")
    parts = {name: _both_parts(root, name, size) for name in trained}
    _share_classes([part for both in parts.values() for part in both])
    domains = {name: Domain(*both) for name, both in parts.items()}
    split = DomainSplit(
        seed, shots, label_percent, validation_fraction, return_task_id, train_transform, eval_transform
    )
    benchmark = split_domains("domainnet_domains", domains, split, {"ood_domains": list(others), "size": size})
    ood: dict[str, Any] = {name: DomainNet(root, name, "test", size) for name in others}
    return with_corruptions(with_ood(benchmark, **ood), corruptions or (), severities, cache=corruption_cache)


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
