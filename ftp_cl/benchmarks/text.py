"""split_text and text_domains: any table of texts and labels as a stream of classes, or of domains."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from ftp_cl.benchmarks._checks import check_domains
from ftp_cl.benchmarks.options import DescribedScenario, TextOptions, class_benchmark, domain_benchmark, takes
from ftp_cl.benchmarks.text_tables import TextTable, parts_of, read_columns

logger = logging.getLogger(__name__)

_OOD = "ood_"


@takes(TextOptions)
def split_text(
    dataset_root: str | Path,
    n_experiences: int = 1,
    seed: int = 0,
    *,
    text: str = "text",
    label: str = "label",
    fixed_class_order: Sequence[int] | None = None,
    first_exp_with_half_classes: bool = False,
    **options: Unpack[TextOptions],
) -> DescribedScenario:
    """Texts of your own, some classes per experience; task-incremental with ``return_task_id``.

    The streams are ``train``, ``test``, ``validation`` if asked for, and one per part ``ood_<name>``, which may have a
    part of the classes.

    Args:
        dataset_root: a directory with ``train``, ``test`` and any number of ``ood_<name>``, each ``.csv`` or
            ``.parquet``; or what ``datasets.DatasetDict.save_to_disk`` wrote, with these parts; or one such file
            with a column ``split`` that names them. Other parts are left out, and recorded.
        n_experiences: it must divide the number of classes (see also ``first_exp_with_half_classes``).
        seed: draws the class order, the validation texts and the shots, each independently of the others.
        text: the column of the texts.
        label: the column of the labels, whole numbers or names.
        fixed_class_order: the class indices in order of arrival, instead of the order drawn.
        first_exp_with_half_classes: half of the classes arrive first, the others in n_experiences - 1 equal parts.
        options: see ``TextOptions``.
    """
    root, tables, settings = _open(dataset_root, text, label, options)
    train = TextTable(root, "train", **tables)
    test = TextTable(root, "test", **tables, classes=train.classes)
    ood = {name.removeprefix(_OOD): TextTable(root, name, **tables) for name in settings["ood_parts"]}
    _tell_of_known([train], {"test": test, **ood})
    order = {"fixed_class_order": fixed_class_order, "first_exp_with_half_classes": first_exp_with_half_classes}
    split: dict[str, Any] = {"n_experiences": n_experiences, "seed": seed, **order, **options}
    return class_benchmark("split_text", train, test, settings, ood, **split)


@takes(TextOptions)
def text_domains(
    dataset_root: str | Path,
    domain: str = "domain",
    train_domains: Sequence[str] = (),
    ood_domains: Sequence[str] | None = None,
    seed: int = 0,
    *,
    text: str = "text",
    label: str = "label",
    **options: Unpack[TextOptions],
) -> DescribedScenario:
    """Texts of your own, domain by domain: all classes in every experience, unseen domains as OOD streams.

    The streams are ``train``, ``test``, ``validation`` if asked for, one ``ood_<domain>`` per domain that is tested on
    and not trained on, and one per part ``ood_<name>``.

    Args:
        dataset_root: as for ``split_text``.
        domain: the column of ``train`` and ``test`` that names the domain.
        train_domains: in order of arrival; () for all of ``train``, as they appear there.
        ood_domains: None for all of ``test`` that are not trained on, () for none.
        seed: draws the validation texts and the shots.
        text: the column of the texts.
        label: the column of the labels, whole numbers or names.
        options: see ``TextOptions``.
    """
    root, tables, settings = _open(dataset_root, text, label, options)
    there, tested = (list(dict.fromkeys(read_columns(root, part, [domain])[0])) for part in ("train", "test"))
    choices = list(dict.fromkeys([*there, *tested]))
    trained, others = check_domains(train_domains or there, ood_domains, choices)
    classes = TextTable(root, "train", **tables).classes

    def table(part: str, name: str) -> TextTable:
        return TextTable(root, part, **tables, classes=classes, where=(domain, name))

    ood = {name.removeprefix(_OOD): TextTable(root, name, **tables) for name in settings["ood_parts"]}
    domains = {name: (table("train", name), table("test", name)) for name in trained}
    unseen = {**{name: table("test", name) for name in others}, **ood}
    _tell_of_known(
        [train for train, _ in domains.values()], {**{n: test for n, (_, test) in domains.items()}, **unseen}
    )
    return domain_benchmark(
        "text_domains", domains, {**settings, "ood_domains": list(others)}, unseen, seed=seed, **options
    )


def _tell_of_known(trained: Iterable[TextTable], tested: Mapping[str, TextTable]) -> None:
    """Warn of texts that stand in the tables to train on and to test on."""
    known = {text for table in trained for text in table.texts}
    for name, table in tested.items():
        if count := sum(text in known for text in table.texts):
            logger.warning(
                "%d of the %d texts to test on in %s are among those to train on: what they tell is memory.",
                count,
                len(table.texts),
                name,
            )


def _open(root: str | Path, text: str, label: str, options: Any) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return where the tables are, how they are read, and what to record; take the former out of the options."""
    root = Path(root).expanduser()
    tables = {"text": text, "label": label, **{name: options.pop(name) for name in ("tokenizer", "max_length")}}
    parts = parts_of(root)
    ood = [part for part in parts if part.startswith(_OOD)]
    left_out = [part for part in parts if part not in ("train", "test", *ood)]
    return root, tables, {**tables, "ood_parts": ood, "parts_left_out": left_out}
