"""split_emoji and emoji_styles: EmojiDomains as a stream of classes, or of styles, tested in all styles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks._checks import check_domains
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, EmojiDomains

if TYPE_CHECKING:
    from ftp_cl.benchmarks.scenario import DescribedScenario


def split_emoji(
    n_experiences: int = 5,
    train_domains: str | Sequence[str] = ("noto",),
    ood_domains: str | Sequence[str] | None = None,
    shots: int | None = None,
    seed: int = 0,
    *,
    size: int = 64,
    validation_fraction: float | None = 0.2,
    fixed_class_order: Sequence[int] | None = None,
    return_task_id: bool = False,
    train_transform: Callable[[Any], Any] | None = to_tensor,
    eval_transform: Callable[[Any], Any] | None = to_tensor,
) -> DescribedScenario:
    """Emoji of 20 classes, a few classes per experience, with art styles that training never shows as OOD streams.

    The streams are ``train``, ``validation`` and ``test`` in the training styles and one ``ood_<domain>`` per other
    style; all have the same classes in the same experiences. No emoji is in two of training, validation and test, in
    whatever style: the OOD streams show the emoji of ``test``, so that what differs is the style alone.

    Args:
        n_experiences: 1 (fine-tuning on all classes at once) to 20; it must divide 20.
        train_domains: style or styles to train, validate and test in; see ``ftp_cl.benchmarks.DOMAINS``.
        ood_domains: styles of the OOD streams; None for all that are not trained on, () for no OOD stream.
        shots: training emoji per class, each in every training style; None for all (6 to 22 after validation, at the
            default fraction). Fewer shots are a subset of more.
        seed: draws the class order, the validation emoji and the shots, each independently of the others.
        size: side of the images in pixels, 8 to 512.
        validation_fraction: share of each class's training emoji that is set aside, one at least; None for no
            validation stream.
        fixed_class_order: the 20 class indices in order of arrival, instead of the order drawn.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image; the default is a float tensor [3, size, size] in [0, 1], for the models of
            this package normalise their inputs themselves.
        eval_transform: the same for evaluation.

    Returns:
        An Avalanche scenario; its ``description`` records the settings, classes and sizes, and which emoji are for
        validation (and, with shots, for training).

    Raises:
        ValueError: in one sentence, for an unknown or repeated style, a style both trained on and OOD, more shots than
            a class has, or any other argument that is out of range.
    """
    # Importing Avalanche takes seconds, which users of EmojiDomains alone need not wait.
    from ftp_cl.benchmarks.class_incremental import (
        StreamData,
        class_incremental_scenario,
        draw_class_order,
        draw_identities,
    )

    train_domains, ood_domains = check_domains(train_domains, ood_domains, DOMAINS)
    class_order = draw_class_order(len(CLASSES), seed, fixed_class_order)
    source = EmojiDomains(train_domains, "train", size)
    training, validation = draw_identities(
        _identities_by_class(source), validation_fraction=validation_fraction, shots=shots, seed=seed
    )
    streams = {
        "train": StreamData(source, _indices(source, training)),
        "test": StreamData(EmojiDomains(train_domains, "test", size)),
        **({} if validation_fraction is None else {"validation": StreamData(source, _indices(source, validation))}),
        **{f"ood_{domain}": StreamData(EmojiDomains(domain, "test", size)) for domain in ood_domains},
    }
    return class_incremental_scenario(
        streams,
        class_order,
        n_experiences,
        class_names=CLASSES,
        return_task_id=return_task_id,
        train_transform=train_transform,
        eval_transform=eval_transform,
        description={
            "benchmark": "split_emoji",
            "n_experiences": n_experiences,
            "train_domains": list(train_domains),
            "ood_domains": list(ood_domains),
            "shots": shots,
            "seed": seed,
            "size": size,
            "validation_fraction": validation_fraction,
            "return_task_id": return_task_id,
            "training_identities": training if shots else None,
            "validation_identities": None if validation_fraction is None else validation,
        },
    )


def emoji_styles(
    train_domains: Sequence[str] = ("noto", "twemoji", "fluent_flat", "emojione"),
    ood_domains: str | Sequence[str] | None = None,
    shots: int | None = None,
    seed: int = 0,
    *,
    size: int = 64,
    validation_fraction: float | None = 0.2,
    return_task_id: bool = False,
    train_transform: Callable[[Any], Any] | None = to_tensor,
    eval_transform: Callable[[Any], Any] | None = to_tensor,
) -> DescribedScenario:
    """Emoji style by style (domain-incremental): all 20 classes in every experience, unseen styles as OOD streams.

    The streams are ``train``, ``validation`` and ``test`` with one experience per training style, and one
    ``ood_<domain>`` per other style, with a single experience. No emoji is in two of training, validation and test, in
    whatever style.

    Args:
        train_domains: styles in order of arrival; see ``ftp_cl.benchmarks.DOMAINS``.
        ood_domains: styles of the OOD streams; None for all that are not trained on, () for no OOD stream.
        shots: training emoji per class, the same in every style; None for all that validation leaves.
        seed: draws the validation emoji and the shots.
        size: side of the images in pixels, 8 to 512.
        validation_fraction: share of each class's training emoji that is set aside, one at least; None for no
            validation stream.
        return_task_id: give the experience's index as task label, instead of 0.
        train_transform: from a PIL image; the default is a float tensor [3, size, size] in [0, 1].
        eval_transform: the same for evaluation.

    Returns:
        An Avalanche scenario; its ``description`` records the settings, classes and sizes.

    Raises:
        ValueError: in one sentence, for an unknown or repeated style, a style both trained on and OOD, more shots than
            a class has, or any other argument that is out of range.
    """
    from ftp_cl.benchmarks.domain_incremental import Domain, DomainSplit, split_domains
    from ftp_cl.benchmarks.ood import with_ood

    trained, others = check_domains(train_domains, ood_domains, DOMAINS)
    # All styles list the same emoji in the same order, so one seed draws the same ones in each.
    domains = {name: Domain(*(EmojiDomains(name, part, size) for part in ("train", "test"))) for name in trained}
    split = DomainSplit(
        seed,
        shots,
        validation_fraction=validation_fraction,
        return_task_id=return_task_id,
        train_transform=train_transform,
        eval_transform=eval_transform,
    )
    benchmark = split_domains("emoji_styles", domains, split, {"ood_domains": list(others), "size": size})
    ood: dict[str, Any] = {name: EmojiDomains(name, "test", size) for name in others}
    return with_ood(benchmark, **ood)


def _identities_by_class(dataset: EmojiDomains) -> dict[str, list[str]]:
    """Return class name -> emoji names; each once, in whichever styles it is drawn."""
    by_class: dict[str, set[str]] = {name: set() for name in CLASSES}
    for target, identity in zip(dataset.targets, dataset.identities, strict=True):
        by_class[CLASSES[target]].add(identity)
    return {name: sorted(identities) for name, identities in by_class.items()}


def _indices(dataset: EmojiDomains, identities: dict[str, list[str]]) -> list[int]:
    wanted = {identity for members in identities.values() for identity in members}
    return [index for index, identity in enumerate(dataset.identities) if identity in wanted]
