"""emoji_scenes: segmentation of emoji in scenes, under shift of the art style, with data that ship."""

from collections.abc import Sequence
from typing import Any

from ftp_cl.benchmarks._checks import check_choice, check_domains
from ftp_cl.benchmarks.dense.scenes import EmojiScenes
from ftp_cl.benchmarks.emoji_domains import DOMAINS
from ftp_cl.benchmarks.options import DescribedScenario


def emoji_scenes(
    n_experiences: int = 1,
    train_domains: str | Sequence[str] = ("noto",),
    ood_domains: str | Sequence[str] | None = None,
    incremental: str = "classes",
    seed: int = 0,
    *,
    size: int = 128,
    train_scenes: int = 400,
    validation_scenes: int = 100,
    test_scenes: int = 200,
    corruptions: str | Sequence[str] | None = None,
    severities: int | Sequence[int] = (1, 2, 3, 4, 5),
    fixed_class_order: Sequence[int] | None = None,
) -> DescribedScenario:
    """Scenes of emoji with masks of 20 classes and background; art styles that training never shows as OOD streams.

    The streams are ``train``, ``validation`` and ``test`` in the training styles and one ``ood_<domain>`` per other
    style, which shows the scenes of ``test`` in that style. The scenes are the same for every ``seed``, as those of a
    published data set would be. See ``EmojiScenes`` and ``mask_classes``.

    Args:
        n_experiences: with ``incremental="classes"``: 1 (all classes at once) to 20; it must divide 20.
        train_domains: style or styles to train, validate and test in.
        ood_domains: styles of the OOD streams; None for all that are not trained on, () for none.
        incremental: "classes" (those of ``train_domains`` together), or "domains": one style after another.
        seed: draws the class order.
        size: side of a scene in pixels, 32 to 512.
        train_scenes: per style, as the next two.
        validation_scenes: see above.
        test_scenes: see above.
        corruptions: as for ``with_corruptions``: each with a severity is a stream ``ood_<corruption>_<severity>`` of
            test scenes, whose masks stay as they are.
        severities: 1 (weak) to 5, one or several.
        fixed_class_order: the 20 class indices, 1 to 20, in order of arrival.

    Raises:
        ValueError: in one sentence, for an argument that is out of range.
    """
    # Importing Avalanche takes seconds, which users of EmojiScenes alone need not wait.
    from ftp_cl.benchmarks.dense.streams import Parts, mask_classes, mask_domains

    check_choice("kind of stream", incremental, ("classes", "domains"))
    train_domains, ood_domains = check_domains(train_domains, ood_domains, DOMAINS)
    if incremental == "domains" and n_experiences not in (1, len(train_domains)):
        raise ValueError(f"n_experiences={n_experiences} does not fit {len(train_domains)} domains: leave it out.")
    settings = {
        "benchmark": "emoji_scenes",
        "train_domains": list(train_domains),
        "ood_domains": list(ood_domains),
        "incremental": incremental,
        "size": size,
        "seed": seed,
    }

    def data(domains: str | Sequence[str]) -> Parts:
        numbers = {"train": train_scenes, "test": test_scenes, "validation": validation_scenes}
        return {split: EmojiScenes(domains, split, number, size) for split, number in numbers.items()}

    ood = {domain: EmojiScenes(domain, "test", test_scenes, size) for domain in ood_domains}
    shifted: dict[str, Any] = {"names": corruptions or (), "severities": severities}
    if incremental == "domains":
        return mask_domains([data(domain) for domain in train_domains], ood, settings, **shifted)
    return mask_classes(data(train_domains), n_experiences, seed, ood, settings, fixed_class_order, **shifted)
