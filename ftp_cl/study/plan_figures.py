"""The figures that a plan asks for, from its results alone."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftp_cl.runs.files import replace_files
from ftp_cl.study.aggregate import Group, aggregate
from ftp_cl.study.label_figures import labels_figure, pseudo_labels_figure, with_label_budgets, with_pseudo_labels
from ftp_cl.study.loading import Result, results_of_rows
from ftp_cl.study.plan import Plan
from ftp_cl.study.rates import write_rates
from ftp_cl.study.store import Store
from ftp_cl.study.style import drawing, file_bytes, looks


def write_plan_figures(plan: Plan, results: Store) -> list[str]:
    """Write each figure of a plan as `<kind>.svg` beside its results.

    Returns:
        Sections of Markdown; none for a figure that has nothing to show yet.

    Raises:
        ReportError: a result is damaged, or a figure cannot be written.
    """
    parts = []
    for kind, settings in plan.figures.items():
        chosen = {setting: groups for setting in settings if (groups := _groups(plan, setting, results))}
        if text := _FIGURES[kind](plan, chosen, results.directory / f"{kind}.svg"):
            parts += [text, f"![{kind.replace('_', '-')}]({kind}.svg)\n"]
    return parts


def _groups(plan: Plan, setting: str, results: Store) -> dict[str, Group]:
    """The runs of each row: keys that the configuration has gained in the meantime do not part them."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in results.runs(setting):
        found[run["row"]].append(run)
    rows = {m.name: results_of_rows(results.directory, found[m.name]) for m in plan.in_setting(setting)}
    return {name: replace(aggregate(of[-1:])[0], name=name, results=tuple(of)) for name, of in rows.items() if of}


_Chosen = Mapping[str, Mapping[str, Group]]


def _rates(plan: Plan, chosen: _Chosen, path: Path) -> str:
    curves = {method.name: method.curve for method in plan.methods}
    found: dict[str, list[Result]] = defaultdict(list)
    for of_setting in chosen.values():
        for name, group in of_setting.items():
            found[curves[name]] += group.results
    if not found:
        return ""
    return f"## Curves over the rate\n\nMean over seeds, band: ± one standard deviation.\n\n{write_rates(found, path)}"


def _labels(plan: Plan, chosen: _Chosen, path: Path) -> str:
    # A line is a method, whatever else than the budget differs between its points: epochs, so that iterations do not.
    groups = with_label_budgets([group for of_setting in chosen.values() for group in of_setting.values()])
    if not groups:
        return ""
    with drawing():
        replace_files({path: file_bytes(labels_figure(groups, {}), ".svg")})
    return (
        "## Accuracy against labels\n\nTest accuracy in the style of the labels (ID) and mean over the OOD streams, "
        f"in {_listed(chosen)}; mean over seeds, band: ± one standard deviation.\n"
    )


def _pseudo_labels(plan: Plan, chosen: _Chosen, path: Path) -> str:
    named = [
        replace(group, label=f"{name}, {setting}")
        for setting, of_setting in chosen.items()
        for name, group in of_setting.items()
    ]
    groups = with_pseudo_labels(named)
    if not groups:
        return ""
    looks_of = dict(zip((group.label for group in groups), looks(len(groups)), strict=True))
    with drawing():
        replace_files({path: file_bytes(pseudo_labels_figure(groups, looks_of), ".svg")})
    return (
        "## Pseudo-labels over training\n\nShare of the unlabelled images whose pseudo-label was used in an epoch, and "
        f"how many of these were right, in {_listed(chosen)}; mean over seeds.\n"
    )


def _listed(settings: Sequence[str] | _Chosen) -> str:
    return ", ".join(settings)


_FIGURES: dict[str, Callable[[Plan, _Chosen, Path], str]] = {
    "rates": _rates,
    "labels": _labels,
    "pseudo_labels": _pseudo_labels,
}
