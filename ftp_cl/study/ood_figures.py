"""The figures on out-of-distribution (OOD) streams: beside the test stream, each alone, and over severity."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ftp_cl.study.aggregate import Group
from ftp_cl.study.loading import Result
from ftp_cl.study.style import (
    GRID,
    INK,
    PAGE_WIDTH,
    Look,
    add_group_legend,
    draw_curve,
    draw_dots,
    new_figure,
    offsets,
    shortened,
)

MOST_STREAMS = 60


def with_ood(groups: Sequence[Group]) -> list[Group]:
    """Those with an OOD stream."""
    return [group for group in groups if any(run.ood for run in group.results)]


def with_severities(groups: Sequence[Group]) -> list[Group]:
    """Those with a corruption of several severities."""
    return [group for group in groups if any(len(run) > 1 for run in _by_severity(group))]


def id_ood_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    """As `draw_id_ood`, alone."""
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.4)
    draw_id_ood(axes, groups, looks_of)
    add_group_legend(figure, groups, looks_of, lines=False)
    return figure


def draw_id_ood(axes: Axes, groups: Sequence[Group], looks_of: dict[str, Look]) -> None:
    """Average accuracy against the mean over the OOD streams, a point for each run."""
    for group in groups:
        points = [(run.average_accuracy, run.ood_average) for run in group.results if run.ood_average is not None]
        look = looks_of[group.label]
        axes.plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, linestyle="none")
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    if min(right, high) - max(left, low) > 0.25 * (right - left):
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set(xlabel="ID: average accuracy (%)", ylabel="OOD: mean over streams (%)")


def ood_streams_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    """Accuracy on each stream; the severities of a corruption are one row, their mean."""
    rows = _ood_rows(run for group in groups for run in group.results)
    rows = dict(islice(rows.items(), MOST_STREAMS))
    row_height = min(0.9, 0.18 + 0.08 * len(groups))
    figure, (axes,) = new_figure(PAGE_WIDTH, 0.9 + max(1.2, row_height * len(rows)))
    for offset, group in zip(offsets(len(groups)), groups, strict=True):
        values = np.array(
            [
                [np.mean([run.ood.get(stream, math.nan) for stream in streams]) for streams in rows.values()]
                for run in group.results
            ]
        )
        evaluated = ~np.isnan(values).all(axis=0)
        positions = np.arange(len(rows))[evaluated] + offset
        draw_dots(axes, positions, values[:, evaluated], looks_of[group.label], vertical=False)
    axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(False, axis="y", which="major")
    axes.grid(True, axis="y", which="minor", color=GRID)
    axes.tick_params(axis="y", which="both", length=0)
    axes.set(xlabel="accuracy (%)", ylabel="OOD stream", ylim=(len(rows) - 0.5, -0.5))
    add_group_legend(figure, groups, looks_of, lines=False)
    return figure


def _ood_rows(runs: Iterable[Result]) -> dict[str, list[str]]:
    """What the rows are called and which streams they are the mean of: a corruption's severities make one row."""
    corruptions: dict[str, list[str]] = {}
    for stream, corrupted in {stream: run.corruptions.get(stream) for run in runs for stream in run.ood}.items():
        corruptions.setdefault(corrupted[0] if corrupted else stream.removeprefix("ood_"), []).append(stream)
    return {
        name if len(members) > 1 else members[0].removeprefix("ood_"): sorted(members)
        for name, members in corruptions.items()
    }


def corruptions_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    """One panel's worth of lines: accuracy over severity, mean over corruptions and seeds."""
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.0)
    for group in groups:
        look = looks_of[group.label]
        means = _by_severity(group)
        curves = np.array([[statistics.fmean(run[severity]) for severity in sorted(run)] for run in means])
        draw_curve(axes, sorted(means[0]), curves, look)
    axes.set(xlabel="severity of the corruption", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_group_legend(figure, groups, looks_of)
    return figure


def _by_severity(group: Group) -> list[dict[int, list[float]]]:
    """For each run that has the same severities as the first: {severity: accuracies of its corruptions}."""
    runs: list[dict[int, list[float]]] = []
    for result in group.results:
        severities: dict[int, list[float]] = {}
        count = Counter(corruption for corruption, _ in result.corruptions.values())
        for stream, (corruption, severity) in result.corruptions.items():
            if count[corruption] == max(count.values()):  # the same corruptions at each severity
                severities.setdefault(severity, []).append(result.ood[stream])
        if severities and (not runs or severities.keys() == runs[0].keys()):
            runs.append(severities)
    return runs
