"""Figures of runs with few labels: accuracy against their number, and what pseudo-labels were worth."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from ftp_cl.study.aggregate import Group, known_mean
from ftp_cl.study.loading import Result
from ftp_cl.study.style import Look, add_legend, draw_spreads, handle, looks, new_figure

_SHARE = "labels.fraction"
_BUDGETS = {"labels.per_class": "labels per class", _SHARE: "share of labels"}
_TWO_PANELS = 7.2  # inches


def with_label_budgets(groups: Sequence[Group]) -> list[Group]:
    """The groups that have a budget of labels of the kind that most have, if there are at least two budgets.

    All labels are the share 1: where most budgets are shares, groups without a budget belong to them.
    """
    kinds = {key: [group for group in groups if group.settings.get(key) is not None] for key in _BUDGETS}
    kind = max(kinds, key=lambda key: len(kinds[key]))
    chosen = kinds[kind]
    if chosen and kind == _SHARE:
        chosen = [group for group in groups if _budget(group)[0] == _SHARE]
    return chosen if len({_budget(group)[1] for group in chosen}) > 1 else []


def labels_figure(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
    """Accuracy, ID and OOD, against the number of labels; one line per method."""
    series: dict[str, list[Group]] = defaultdict(list)
    for group in sorted(groups, key=lambda group: _budget(group)[1]):
        # Without its budget: what the points of one line have in common.
        others = ", ".join(f"{key}={value}" for key, value in group.differences.items() if key not in _BUDGETS)
        series[f"{group.name} ({others})" if others else group.name].append(group)
    has_ood = any(run.ood_average is not None for group in groups for run in group.results)
    figure, panels = new_figure(_TWO_PANELS if has_ood else _TWO_PANELS / 2, 3.2, 1 + has_ood)
    names = list(series)
    measures: list[tuple[str, Callable[[Result], float | None]]] = [
        ("ID: average accuracy (%)", lambda run: run.average_accuracy),
        ("OOD: mean over streams (%)", lambda run: run.ood_average),
    ]
    for axes, (title, read) in zip(panels, measures, strict=False):
        for name, look in zip(names, looks(len(names)), strict=True):
            points = [(_budget(group)[1], spread) for group in series[name] if (spread := group.spread(read))]
            draw_spreads(axes, [budget for budget, _ in points], [spread for _, spread in points], look)
        _label_axis(axes, groups)
        axes.set(ylabel=title)
    add_legend(figure, [handle(look) for look in looks(len(names))], names)
    return figure


def _label_axis(axes: Axes, groups: Sequence[Group]) -> None:
    budgets = sorted({_budget(group)[1] for group in groups})
    axes.set(xscale="log", xlabel=_BUDGETS[_budget(groups[0])[0]])
    axes.set_xticks(budgets)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _budget(group: Group) -> tuple[str, float]:
    """The key of the group's budget and its value; the share 1 for a group that has all labels."""
    key = next((key for key in _BUDGETS if group.settings.get(key) is not None), None)
    return (_SHARE, 1.0) if key is None else (key, float(group.settings[key]))


# ---- pseudo-labels -------------------------------------------------------------------------------------------------


def pseudo_labels_figure(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
    """Share of unlabelled images whose pseudo-label is used, and how many of these are right, over training."""
    figure, panels = new_figure(_TWO_PANELS, 3.2, 2)
    for group in groups:
        curves = [run.pseudo_labels for run in group.results if run.pseudo_labels]
        # Seeds whose runs are cut short would bend the mean: it goes as far as all of them.
        values = np.array([curve[: min(map(len, curves))] for curve in curves], dtype=float)
        for axes, measure in zip(panels, (values[:, :, 0], values[:, :, 1]), strict=True):
            look = looks_of[group.label]
            axes.plot(np.arange(1, measure.shape[1] + 1), known_mean(measure), color=look.colour, linestyle=look.dash)
    for axes, title in zip(panels, ("pseudo-labels used (%)", "of these, right (%)"), strict=True):
        axes.set(xlabel="epoch, counted over all experiences", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [handle(replace(looks_of[group.label], marker="")) for group in groups]
    add_legend(figure, handles, [group.label for group in groups])
    return figure
