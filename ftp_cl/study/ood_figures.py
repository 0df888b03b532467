"""The figures on out-of-distribution (OOD) streams: beside the test stream, each alone, and over severity."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ftp_cl.study.aggregate import Group, Spread
from ftp_cl.study.loading import Result
from ftp_cl.study.style import (
    GRID,
    INK,
    PAGE_WIDTH,
    Look,
    add_group_legend,
    draw_dots,
    draw_spreads,
    new_figure,
    offsets,
    shortened,
)

MOST_STREAMS = 60


def draw_id_ood(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
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


def ood_streams_figure(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
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


def draw_corruptions(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
    """Accuracy over severity, mean over corruptions and seeds."""
    for group in groups:
        means = by_severity(group)
        severities = sorted(means[0])
        spreads = [Spread.of([statistics.fmean(run[severity]) for run in means]) for severity in severities]
        draw_spreads(axes, severities, spreads, looks_of[group.label])
    axes.set(xlabel="severity of the corruption", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def by_severity(group: Group) -> list[dict[int, list[float]]]:
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
