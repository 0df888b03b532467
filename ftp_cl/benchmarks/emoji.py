"""split_emoji, emoji_text and emoji_styles: emoji as a stream of classes, or of styles, tested in all styles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftp_cl.benchmarks._checks import Size, check_domains
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, EmojiDomains
from ftp_cl.benchmarks.emoji_words import WORDINGS, EmojiText
from ftp_cl.benchmarks.options import SplitOptions, TextOptions, domain_benchmark, takes

if TYPE_CHECKING:
    from typing import Unpack

    from ftp_cl.benchmarks.scenario import DescribedScenario


@takes(SplitOptions, validation_fraction=0.2)
def split_emoji(
    n_experiences: int | Sequence[int] = 5,
    train_domains: str | Sequence[str] = ("noto",),
    ood_domains: str | Sequence[str] | None = None,
    shots: int | None = None,
    seed: int = 0,
    *,
    size: Size = 64,
    fixed_class_order: Sequence[int] | None = None,
    **options: Unpack[SplitOptions],
) -> DescribedScenario:
    """Emoji of 20 classes, a few classes per experience, with art styles that training never shows as OOD streams.

    The streams are ``train``, ``validation`` and ``test`` in the training styles and one ``ood_<domain>`` per other
    style; all have the same classes in the same experiences. No emoji is in two of training, validation and test, in
    whatever style: the OOD streams show the emoji of ``test``, so that what differs is the style alone.

    Args:
        n_experiences: 1 (fine-tuning on all classes at once) to 20; it must divide 20, or is a list of how many classes
            each has.
        train_domains: style or styles to train, validate and test in; see ``ftp_cl.benchmarks.DOMAINS``.
        ood_domains: styles of the OOD streams; None for all that are not trained on, () for no OOD stream.
        shots: training emoji per class, each in every training style; None for all (6 to 22 after validation, at the
            default fraction). Fewer shots are a subset of more.
        seed: draws the class order, the validation emoji and the shots, each independently of the others.
        size: side of the images in pixels, 8 to 512.
        fixed_class_order: the 20 class indices in order of arrival, instead of the order drawn.
        options: see ``SplitOptions``.
    """

    def make(domains: str | Sequence[str], part: str) -> EmojiDomains:
        return EmojiDomains(domains, part, size)

    domains = check_domains(train_domains, ood_domains, DOMAINS)
    return _split("split_emoji", make, domains, n_experiences, shots, seed, fixed_class_order, {"size": size}, options)


@takes(TextOptions, validation_fraction=0.2)
def emoji_text(
    n_experiences: int = 5,
    train_domains: str | Sequence[str] = ("name",),
    ood_domains: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    fixed_class_order: Sequence[int] | None = None,
    **options: Unpack[TextOptions],
) -> DescribedScenario:
    """Names of the emoji of ``split_emoji``, told apart by class, with other wordings and languages as OOD streams.

    The streams are as in ``split_emoji``, with the same emoji in the same parts, but that an item is a text.

    Args:
        n_experiences: 1 (fine-tuning on all classes at once) to 20; it must divide 20.
        train_domains: wording or wordings to train, validate and test in; see ``ftp_cl.benchmarks.WORDINGS``.
        ood_domains: wordings of the OOD streams; None for all that are not trained on, () for no OOD stream.
        seed: draws the class order, the validation emoji and the shots, each independently of the others.
        fixed_class_order: the 20 class indices in order of arrival, instead of the order drawn.
        options: see ``TextOptions``; a shot is an emoji, in every training wording.
    """
    tables = {name: options.pop(name) for name in ("tokenizer", "max_length")}  # type: ignore[misc]

    def make(domains: str | Sequence[str], part: str) -> EmojiText:
        return EmojiText(domains, part, **tables)

    domains, shots = check_domains(train_domains, ood_domains, WORDINGS), options.pop("shots")
    return _split("emoji_text", make, domains, n_experiences, shots, seed, fixed_class_order, tables, options)


def _split(
    name: str,
    make: Callable[[str | Sequence[str], str], EmojiDomains | EmojiText],
    domains: tuple[Sequence[str], Sequence[str]],
    n_experiences: int | Sequence[int],
    shots: int | None,
    seed: int,
    fixed_class_order: Sequence[int] | None,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> DescribedScenario:
    """Cut what ``make(domains, part)`` gives, so that no emoji is in two of training, validation and test."""
    # Importing Avalanche takes seconds, which users of EmojiDomains alone need not wait.
    from ftp_cl.benchmarks.class_incremental import ClassSplit, StreamData, class_incremental_scenario, draw_class_order
    from ftp_cl.benchmarks.scenario import OOD

    split = ClassSplit(n_experiences, seed, shots=shots, **options)
    train_domains, ood_domains = domains
    class_order = draw_class_order(len(CLASSES), seed, fixed_class_order)
    source = make(train_domains, "train")
    training, validation = split.draw(_identities_by_class(source), seed)
    is_validated = split.validation_fraction is not None
    streams = {
        "train": StreamData(source, _indices(source, training)),
        "test": StreamData(make(train_domains, "test")),
        **({"validation": StreamData(source, _indices(source, validation))} if is_validated else {}),
        **{f"ood_{domain}": StreamData(make(domain, "test"), kind=OOD) for domain in ood_domains},
    }
    return class_incremental_scenario(
        streams,
        class_order,
        split,
        CLASSES,
        {
            "benchmark": name,
            "n_experiences": n_experiences,
            "train_domains": list(train_domains),
            "ood_domains": list(ood_domains),
            "shots": shots,
            "seed": seed,
            **settings,
            "validation_fraction": split.validation_fraction,
            "return_task_id": split.return_task_id,
            "training_identities": training if shots else None,
            "validation_identities": validation if is_validated else None,
        },
    )


@takes(SplitOptions, validation_fraction=0.2)
def emoji_styles(
    train_domains: Sequence[str] = ("noto", "twemoji", "fluent_flat", "emojione"),
    ood_domains: str | Sequence[str] | None = None,
    shots: int | None = None,
    seed: int = 0,
    *,
    size: Size = 64,
    **options: Unpack[SplitOptions],
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
        options: see ``SplitOptions``.
    """
    trained, others = check_domains(train_domains, ood_domains, DOMAINS)
    # All styles list the same emoji in the same order, so one seed draws the same ones in each.
    domains = {name: (EmojiDomains(name, "train", size), EmojiDomains(name, "test", size)) for name in trained}
    settings = {"ood_domains": list(others), "size": size}
    ood = {name: EmojiDomains(name, "test", size) for name in others}
    return domain_benchmark("emoji_styles", domains, settings, ood, seed=seed, shots=shots, **options)


def _identities_by_class(dataset: EmojiDomains | EmojiText) -> dict[str, list[str]]:
    """Return class name -> emoji names; each once, in whichever styles it is drawn."""
    by_class: dict[str, set[str]] = {name: set() for name in CLASSES}
    for target, identity in zip(dataset.targets, dataset.identities, strict=True):
        by_class[CLASSES[target]].add(identity)
    return {name: sorted(identities) for name, identities in by_class.items()}


def _indices(dataset: EmojiDomains | EmojiText, identities: dict[str, list[str]]) -> list[int]:
    wanted = {identity for members in identities.values() for identity in members}
    return [index for index, identity in enumerate(dataset.identities) if identity in wanted]
