"""domain_folder: the field's domain sets (PACS, Office-Home, VLCS, ...), one folder per domain, one per class in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from ftp_cl.benchmarks._checks import Size, check_choice, check_choices, check_domains, check_names, composed
from ftp_cl.benchmarks.folder import ImageFolder
from ftp_cl.benchmarks.image_files import class_folders
from ftp_cl.benchmarks.options import ClassOptions, DescribedScenario, class_benchmark, domain_benchmark, takes

_SPLITS = ("train", "test", "all")
_TEST_SHARE = 0.2


class DomainFolder(ImageFolder):
    """One or several domains of a data set in folders, divided into a training and a test part.

    An item is ``(image, target)``: as in ``ImageFolder``, but read as published data are, see ``ImageFiles``.

    Args:
        root: holds ``<domain>/<class>/<image>``.
        domain: one or several, which are appended in the order given.
        split: ``"train"``; ``"test"``, 20 % of each class of each domain, one image at least; or ``"all"``.
        split_seed: draws the test images.
        size: side of the images in pixels; None for as they are.
        classes: the class names, if these domains lack some; None for the names of their folders.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: for an unknown domain or split, a domain of a single class, a class of one image only that is to be
            divided, classes whose names differ in capitals only, or a folder that ``ImageFolder`` refuses.
    """

    as_viewed = False

    def __init__(
        self,
        root: str | Path,
        domain: str | Sequence[str],
        split: str,
        split_seed: int = 0,
        size: Size | None = 224,
        classes: Sequence[str] | None = None,
    ) -> None:
        folders = _domains(Path(root))
        self.domain = check_choices("domain", _composed(domain), list(folders))
        check_choice("split", split, _SPLITS)
        places = [folders[name] for name in self.domain]
        parts = {place: _part(ImageFolder(Path(root) / place, size), split, split_seed) for place in places}
        items = [(f"{place}/{path}", c) for place, part in parts.items() for path, c in part]
        self.parent, self.split, self.split_seed = Path(root), split, split_seed
        names = sorted({name for _, name in items}) if classes is None else list(classes)
        for name, other in zip(alike := sorted(names, key=str.casefold), alike[1:], strict=False):
            if name.casefold() == other.casefold():
                raise ValueError(
                    f"The domains {', '.join(self.domain)} in {root} have classes {name!r} and {other!r}, which differ "
                    "in capitals only: give their folders one name."
                )
        index_of = {name: index for index, name in enumerate(names)}
        self._set_files(Path(root), [(path, index_of[name]) for path, name in items], names, size)


def _domains(root: Path) -> dict[str, str]:
    """Return domain -> its folder, whose letters may be composed otherwise."""
    folders = class_folders(root)
    check_names(str(root), folders)
    return {composed(name): name for name in folders}


def _composed(domains: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(map(composed, (domains,) if isinstance(domains, str) else domains))


def _part(folder: ImageFolder, split: str, seed: int) -> list[tuple[str, str]]:
    """Return the (path, class name) of the images of a part."""
    from ftp_cl.benchmarks.class_incremental import draw_identities, indices_by_class

    if len(folder.classes) == 1:
        raise ValueError(
            f"{folder.parent} holds a single folder, {folder.classes[0]}: a domain needs one per class; if the classes "
            "lie below it, move them up."
        )
    members = indices_by_class(folder)
    if split != "all":
        if single := [name for name, indices in members.items() if len(indices) == 1]:
            raise ValueError(f"{folder.parent / single[0]} holds one image: two are needed, to train and to test on.")
        training, test = draw_identities(members, validation_fraction=_TEST_SHARE, shots=None, seed=seed)
        members = training if split == "train" else test
    return [(folder.paths[index], name) for name, indices in members.items() for index in sorted(indices)]


@takes(ClassOptions)
def domain_folder(
    dataset_root: str | Path,
    train_domains: str | Sequence[str],
    ood_domains: str | Sequence[str] | None = None,
    n_experiences: int | Sequence[int] | None = None,
    seed: int = 0,
    *,
    split_seed: int = 0,
    label_percent: float = 100,
    size: Size = 224,
    **options: Unpack[ClassOptions],
) -> DescribedScenario:
    """A data set in folders of domains: domain by domain or class by class, with all images of other domains as OOD.

    The streams are ``train``, ``test``, ``validation`` if asked for, one ``ood_<domain>`` per other domain, of all its
    images, and one ``ood_<corruption>_<severity>`` per corruption and severity.

    Args:
        dataset_root: holds ``<domain>/<class>/<image>``, as PACS, Office-Home, VLCS and Terra Incognita do.
        train_domains: in order of arrival; 20 % of their images, drawn from each class, are for testing.
        ood_domains: None for all others, () for none.
        n_experiences: None for domain-incremental: an experience per training domain, all classes in each. A number,
            or a list of how many classes each has, for class-incremental, on all training domains together.
        seed: draws the class order, the validation images, the shots and the labels that are kept.
        split_seed: draws the test images; apart from ``seed``, so that runs with several seeds share a test set.
        label_percent: share of the training images of each class (and domain) to train on, one image at least.
        size: side of the images in pixels, 8 to 1024: the shorter side is resized to it, then the middle is cut out.
        options: see ``ClassOptions``; those of the class order are for class-incremental only.
    """
    root = Path(dataset_root).expanduser()
    chosen = None if ood_domains is None else _composed(ood_domains)
    trained, others = check_domains(_composed(train_domains), chosen, list(_domains(root)))
    ood = {name: DomainFolder(root, name, "all", size=size) for name in others}
    settings: dict[str, Any] = {"ood_domains": list(others), "split_seed": split_seed, "size": size}
    train, test = (DomainFolder(root, trained, split, split_seed, size) for split in _SPLITS[:2])
    drawn: dict[str, Any] = {"seed": seed, "label_percent": label_percent}
    if n_experiences is not None:
        settings["train_domains"] = list(trained)
        drawn["n_experiences"] = n_experiences
        return class_benchmark("domain_folder", train, test, settings, ood, **drawn, **options)
    if options.pop("fixed_class_order") or options.pop("first_exp_with_half_classes"):
        raise ValueError(
            "fixed_class_order and first_exp_with_half_classes are for class-incremental: give n_experiences, too."
        )

    def part(name: str, split: str) -> DomainFolder:
        return DomainFolder(root, name, split, split_seed, size, train.classes)

    domains = {name: (part(name, "train"), part(name, "test")) for name in trained}
    return domain_benchmark("domain_folder", domains, settings, ood, **drawn, **options)
