"""split_emoji, emoji_text and emoji_styles: emoji as a stream of classes, or of styles, tested in all styles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from ftp_cl.benchmarks._checks import Size, check_domains
from ftp_cl.benchmarks.emoji_domains import DOMAINS, EmojiDomains
from ftp_cl.benchmarks.emoji_words import WORDINGS, EmojiText
from ftp_cl.benchmarks.options import (
    DescribedScenario,
    SplitOptions,
    TextOptions,
    class_benchmark,
    domain_benchmark,
    takes,
)


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
    return _split(
        "split_emoji",
        lambda domains, part: EmojiDomains(domains, part, size),
        check_domains(train_domains, ood_domains, DOMAINS),
        {"size": size},
        n_experiences=n_experiences,
        shots=shots,
        seed=seed,
        fixed_class_order=fixed_class_order,
        **options,
    )


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
    return _split(
        "emoji_text",
        lambda domains, part: EmojiText(domains, part, **tables),
        check_domains(train_domains, ood_domains, WORDINGS),
        tables,
        n_experiences=n_experiences,
        seed=seed,
        fixed_class_order=fixed_class_order,
        **options,
    )


def _split(
    name: str,
    make: Callable[[str | Sequence[str], str], EmojiDomains | EmojiText],
    domains: tuple[Sequence[str], Sequence[str]],
    settings: Mapping[str, Any],
    **options: Any,
) -> DescribedScenario:
    """Cut what ``make(domains, part)`` gives, so that no emoji is in two of training, validation and test."""
    (trained, others), train = domains, make(domains[0], "train")
    settings = {"train_domains": list(trained), "ood_domains": list(others), **settings}
    ood = {domain: make(domain, "test") for domain in others}
    test, identities = make(trained, "test"), train.identities
    return class_benchmark(name, train, test, settings, ood, identities=identities, **options)


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
