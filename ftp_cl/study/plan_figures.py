"""The figures that a plan asks for, from its results alone."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import label

from ftp_cl.runs.files import replace_files
from ftp_cl.study.aggregate import Group, Spread, aggregate
from ftp_cl.study.figures import group_looks, with_pseudo_labels
from ftp_cl.study.label_figures import labels_figure, pseudo_labels_figure, with_label_budgets
from ftp_cl.study.loading import Result, results_of_rows
from ftp_cl.study.plan import Plan
from ftp_cl.study.store import Store
from ftp_cl.study.style import add_legend, draw_spreads, drawing, file_bytes, handle, label_powers, looks, new_figure

_NEAR = 2.0  # points
_PANELS = {"average accuracy (%)": "average_accuracy", "OOD average (%)": "ood_average"}


def write_plan_figures(plan: Plan, results: Store) -> list[str]:
    """Write each figure of a plan as `<kind>.svg` beside its results.

    Returns:
        Sections of Markdown; none for a figure that has nothing to show yet.

    Raises:
        ReportError: a result is damaged.
        OSError: a figure cannot be written.
    """
    parts = []
    for kind, settings in plan.figures.items():
        chosen = {setting: groups for setting in settings if (groups := _groups(plan, setting, results))}
        with drawing():
            if found := _FIGURES[kind](plan, chosen):
                text, figure = found
                replace_files({results.directory / f"{kind}.svg": file_bytes(figure, ".svg")})
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


def _labels(plan: Plan, chosen: _Chosen) -> tuple[str, Figure] | None:
    # A line is a method, whatever else than the budget differs between its points: epochs, so that iterations do not.
    groups = with_label_budgets([group for of_setting in chosen.values() for group in of_setting.values()])
    text = (
        "## Accuracy against labels\n\nTest accuracy in the style of the labels (ID) and mean over the OOD streams, "
        f"in {', '.join(chosen)}; mean over seeds, band: ± one standard deviation.\n"
    )
    return (text, labels_figure(groups, {})) if groups else None


def _pseudo_labels(plan: Plan, chosen: _Chosen) -> tuple[str, Figure] | None:
    groups = with_pseudo_labels(
        [
            replace(group, label=f"{name}, {setting}")
            for setting, of_setting in chosen.items()
            for name, group in of_setting.items()
        ]
    )
    text = (
        "## Pseudo-labels over training\n\nShare of the unlabelled images whose pseudo-label was used in an epoch, and "
        f"how many of these were right, in {', '.join(chosen)}; mean over seeds.\n"
    )
    return (text, pseudo_labels_figure(groups, group_looks(groups))) if groups else None


# ---- curves over the learning rate of the backbone: how wide a method's good range is --------------------------------


def _rates(plan: Plan, chosen: _Chosen) -> tuple[str, Figure] | None:
    """Accuracy and OOD average against the rate; a table of best mean, area under the curve and width of each.

    A row that the plan gives no rates (`each`) is a level line, or in the tables alone if it was tuned.
    """
    rows = {m.name: m for m in plan.methods if not m.space or m.curve != m.name}
    found: dict[str, list[Result]] = defaultdict(list)
    for of_setting in chosen.values():
        for name, method in rows.items():
            if name in of_setting:
                found[method.curve] += of_setting[name].results
    if not found:
        return None
    lines = [
        "## Curves over the rate\n\nMean over seeds, band: ± one standard deviation.\n",
        "| curve | measure | best | at rate | mean over the curve | decades within 2 points of the best |",
        "|---|---|---|---|---|---|",
    ]
    figure, panels = new_figure(7.2, 3.2, len(_PANELS))
    for axes, (title, key) in zip(panels, _PANELS.items(), strict=True):
        every_rate: set[float] = set()
        for (curve, results), look in zip(found.items(), looks(len(found)), strict=True):
            if curve in rows:
                level = np.mean([getattr(result, key) for result in results])
                axes.axhline(level, color=look.colour, linestyle=":")
                lines.append(f"| {curve} | {title} | {level:.1f} | | | |")
                continue
            spreads = _over_rates(results, key)
            rates, means = list(spreads), [spread.mean for spread in spreads.values()]
            draw_spreads(axes, rates, list(spreads.values()), look)
            best = int(np.argmax(means))
            cells = [
                f"{means[best]:.1f}",
                f"{rates[best]:g}",
                f"{area(rates, means):.1f}",
                f"{width(rates, means):.1f}",
            ]
            lines.append(f"| {' | '.join([curve, title, *cells])} |")
            every_rate |= spreads.keys()
        axes.set(xscale="log", xlabel="learning rate of the backbone", ylabel=title, ylim=(0, None))
        if every_rate:
            label_powers(axes.xaxis, min(every_rate), max(every_rate))
    add_legend(figure, [handle(look) for look in looks(len(found))], list(found))
    return "\n".join(lines) + "\n", figure


def _over_rates(results: Sequence[Result], key: str) -> dict[float, Spread]:
    values: dict[float, list[float]] = defaultdict(list)
    for result in results:
        rates = result.config["optimizer"]
        rate = rates["lr"] if rates["backbone_lr"] is None else rates["backbone_lr"]
        values[float(rate)].append(getattr(result, key))
    return {rate: Spread.of(values[rate]) for rate in sorted(values)}


def area(rates: Sequence[float], means: Sequence[float]) -> float:
    """Mean of a curve over the logarithm of the rate, by the trapezoidal rule."""
    at = np.log10(rates)
    return float(np.trapezoid(means, at) / (at[-1] - at[0])) if len(rates) > 1 else means[0]


def width(rates: Sequence[float], means: Sequence[float]) -> float:
    """Decades of the rate, ascending, around the best one in which the mean stays within 2 points of the best."""
    parts, _ = label(np.array(means) >= max(means) - _NEAR)
    first, last = np.flatnonzero(parts == parts[np.argmax(means)])[[0, -1]]
    return float(np.log10(rates[last] / rates[first]))


_FIGURES: dict[str, Callable[[Plan, _Chosen], tuple[str, Figure] | None]] = {
    "rates": _rates,
    "labels": _labels,
    "pseudo_labels": _pseudo_labels,
}
