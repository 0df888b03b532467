"""The figures of a report: what is drawn, for which groups, and the sentence that says how it was computed."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ftp_cl.runs.schema import TensorProjection
from ftp_cl.study.aggregate import Group
from ftp_cl.study.label_figures import (
    labels_figure,
    pseudo_labels_figure,
    with_label_budgets,
    with_pseudo_labels,
)
from ftp_cl.study.layer_figure import MOST_GROUPS, layers_figure, with_layers_over_time
from ftp_cl.study.loading import Result
from ftp_cl.study.style import (
    GRID,
    INK,
    PAGE_WIDTH,
    SMALLEST_RADIUS,
    Look,
    add_legend,
    label_powers,
    looks,
    new_figure,
    short_tensor_names,
    shortened,
)

MOST_DRAWN = 100  # groups: more can neither be told apart nor drawn in reasonable time
_MOST_STREAMS = 60

_SHORTEST_TIME = 1e-3  # seconds; the least that the logarithmic axis shows


@dataclass(frozen=True)
class FigureKind:
    """One figure of the page.

    Attributes:
        caption: one sentence on how it was computed.
        select: the groups that it can show; it is left out if there are none.
        draw: draws these groups.
    """

    name: str
    title: str
    caption: str
    select: Callable[[Sequence[Group]], list[Group]]
    draw: Callable[[Sequence[Group], dict[str, Look]], Figure]


def group_looks(groups: Sequence[Group]) -> dict[str, Look]:
    """One look per label, the same in all figures of a benchmark."""
    return dict(zip((group.label for group in groups), looks(len(groups)), strict=True))


def all_figures(groups: Sequence[Group]) -> Iterator[tuple[FigureKind, Figure]]:
    """Each figure that there is something to show in, of the first `MOST_DRAWN` groups of a benchmark."""
    drawn = groups[:MOST_DRAWN]
    looks_of = group_looks(drawn)
    for kind in FIGURE_KINDS:
        if shown := kind.select(drawn):
            yield kind, kind.draw(shown, looks_of)


def main_figure(groups: Sequence[Group]) -> Figure:
    """Accuracy after each experience, and beside it ID against OOD accuracy where a run has OOD streams.

    Shows the first `MOST_DRAWN` groups of a benchmark.
    """
    groups = groups[:MOST_DRAWN]
    looks_of = group_looks(groups)
    with_ood = _with_ood(groups)
    figure, axes = new_figure(9.4 if with_ood else PAGE_WIDTH, 3.4, panels=2 if with_ood else 1)
    _draw_accuracy(axes[0], groups, looks_of)
    if with_ood:
        _draw_id_ood(axes[1], with_ood, looks_of)
    _group_legend(figure, groups, looks_of)
    return figure


def _accuracy_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.0)
    _draw_accuracy(axes, groups, looks_of)
    _group_legend(figure, groups, looks_of)
    return figure


def _draw_accuracy(axes: Axes, groups: Sequence[Group], looks_of: dict[str, Look]) -> None:
    for group in groups:
        curves = np.stack([result.accuracy_after_each_experience() for result in group.results])
        _draw_curve(axes, curves, looks_of[group.label])
    axes.set(xlabel="training experience", ylabel="average accuracy so far (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_curve(axes: Axes, curves: np.ndarray, look: Look) -> None:
    """Mean over the seeds (rows) as a line, plus and minus one standard deviation as a band."""
    x, mean = np.arange(1, curves.shape[1] + 1), curves.mean(axis=0)
    axes.plot(x, mean, color=look.colour, marker=look.marker, linestyle=look.dash)
    if len(curves) > 1:
        std = curves.std(axis=0, ddof=1)
        axes.fill_between(x, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)


def _forgetting_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.0)
    axes.axhline(0, color=INK, linewidth=0.8)
    for offset, group in zip(_offsets(len(groups)), groups, strict=True):
        values = np.stack([result.forgetting_per_experience() for result in group.results])
        x = group.results[0].old_experiences + 1 + offset
        _draw_dots(axes, x, values, looks_of[group.label], vertical=True)
    axes.grid(False, axis="x")
    axes.set(xlabel="experience", ylabel="forgetting (percentage points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _group_legend(figure, groups, looks_of)
    return figure


def _draw_dots(axes: Axes, positions: np.ndarray, values: np.ndarray, look: Look, vertical: bool) -> None:
    """Mean over the seeds (rows; NaN where a seed lacks the value) as dots, one standard deviation as bars."""
    known = [column[~np.isnan(column)] for column in values.T]
    mean = np.array([column.mean() for column in known])
    std = np.array([column.std(ddof=1) if len(column) > 1 else 0.0 for column in known])
    along, across = (positions, mean) if vertical else (mean, positions)
    axes.errorbar(
        *(along, across),
        yerr=std if vertical else None,
        xerr=None if vertical else std,
        color=look.colour,
        marker=look.marker,
        linestyle="none",
        elinewidth=1,
    )


def _id_ood_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.4)
    _draw_id_ood(axes, groups, looks_of)
    _group_legend(figure, groups, looks_of, lines=False)
    return figure


def _draw_id_ood(axes: Axes, groups: Sequence[Group], looks_of: dict[str, Look]) -> None:
    for group in groups:
        points = [(run.average_accuracy, run.ood_average) for run in group.results if run.ood_average is not None]
        look = looks_of[group.label]
        axes.plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, linestyle="none")
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    if min(right, high) - max(left, low) > 0.25 * (right - left):
        axes.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlim=(left, right), ylim=(low, high))
    axes.set(xlabel="ID: average accuracy (%)", ylabel="OOD: mean over streams (%)")


def _ood_streams_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    rows = _ood_rows(run for group in groups for run in group.results)
    rows = dict(islice(rows.items(), _MOST_STREAMS))
    row_height = min(0.9, 0.18 + 0.08 * len(groups))
    figure, (axes,) = new_figure(PAGE_WIDTH, 0.9 + max(1.2, row_height * len(rows)))
    for offset, group in zip(_offsets(len(groups)), groups, strict=True):
        values = np.array(
            [
                [np.mean([run.ood.get(stream, math.nan) for stream in streams]) for streams in rows.values()]
                for run in group.results
            ]
        )
        evaluated = ~np.isnan(values).all(axis=0)
        positions = np.arange(len(rows))[evaluated] + offset
        _draw_dots(axes, positions, values[:, evaluated], looks_of[group.label], vertical=False)
    axes.set_yticks(range(len(rows)), [shortened(name) for name in rows])
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(False, axis="y", which="major")
    axes.grid(True, axis="y", which="minor", color=GRID)
    axes.tick_params(axis="y", which="both", length=0)
    axes.set(xlabel="accuracy (%)", ylabel="OOD stream", ylim=(len(rows) - 0.5, -0.5))
    _group_legend(figure, groups, looks_of, lines=False)
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


def _projection_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    tensors = list(dict.fromkeys(tensor for group in groups for run in group.results for tensor in run.projection))
    figure, (axes,) = new_figure(PAGE_WIDTH, min(7.5, 1.6 + 0.16 * len(tensors)))
    for group in groups:
        look = looks_of[group.label]
        depth = [i for i, tensor in enumerate(tensors) if any(tensor in run.projection for run in group.results)]
        radius = [_mean_over_runs(group, tensors[i], lambda tensor: tensor.radius) for i in depth]
        distance = [_mean_over_runs(group, tensors[i], lambda tensor: tensor.mean_distance) for i in depth]
        marker = look.marker if len(tensors) <= 40 else ""
        axes.plot(np.maximum(radius, SMALLEST_RADIUS), depth, color=look.colour, marker=marker, linewidth=1.2)
        axes.plot(np.maximum(distance, SMALLEST_RADIUS), depth, color=look.colour, linewidth=1.2, linestyle=":")
    step = -(-len(tensors) // 36)
    names = short_tensor_names(tensors)
    axes.set_yticks(range(0, len(tensors), step), names[::step], fontsize=8)
    axes.set(
        xlabel="row-wise L1 norm (weight units)", ylabel="tensor, input to output", ylim=(len(tensors) - 0.5, -0.5)
    )
    _logarithmic(axes.xaxis)
    kinds = {"radius": Line2D([], [], color=INK), "mean distance": Line2D([], [], color=INK, linestyle=":")}
    handles = [_handle(looks_of[group.label], lines=False) for group in groups]
    add_legend(figure, [*handles, *kinds.values()], [*(group.label for group in groups), *kinds])
    return figure


def _mean_over_runs(group: Group, tensor: str, read: Callable[[TensorProjection], float]) -> float:
    values = [read(run.projection[tensor]) for run in group.results if tensor in run.projection]
    finite = [value for value in values if math.isfinite(value)]  # a run may have diverged
    return statistics.fmean(finite) if finite else math.nan


def _radius_over_experiences_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.0)
    for group in groups:
        look = looks_of[group.label]
        radii = [run.radii_after_each_experience for run in group.results if run.radii_after_each_experience]
        length = min(len(run) for run in radii)  # a killed run may have written fewer experiences than the others
        shares = [[_percentiles(tensors.values()) for tensors in run[:length]] for run in radii]
        low, median, high = np.mean(shares, axis=0).T
        x = np.arange(1, length + 1)
        axes.plot(x, median, color=look.colour, marker=look.marker, linestyle=look.dash)
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="training experience", ylabel="radius (weight units)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _logarithmic(axes.yaxis)
    _group_legend(figure, groups, looks_of)
    return figure


def _percentiles(radii: Iterable[float]) -> np.ndarray:
    """The 10th, 50th and 90th; NaN where a run that diverged has no radius that is finite."""
    values = list(radii)
    return np.percentile(values, (10, 50, 90)) if values else np.full(3, math.nan)


def _cost_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.4)
    for group in groups:
        points = [(max(run.train_seconds, _SHORTEST_TIME), run.average_accuracy) for run in group.results]
        look = looks_of[group.label]
        axes.plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, linestyle="none")
    axes.set(xlabel="time in training (s)", ylabel="average accuracy (%)")
    _logarithmic(axes.xaxis)
    _group_legend(figure, groups, looks_of, lines=False)
    return figure


def _corruptions_figure(groups: Sequence[Group], looks_of: dict[str, Look]) -> Figure:
    """One panel's worth of lines: accuracy over severity, mean over corruptions and seeds."""
    figure, (axes,) = new_figure(PAGE_WIDTH, 3.0)
    for group in groups:
        look = looks_of[group.label]
        means = _by_severity(group)
        curves = np.array([[statistics.fmean(run[severity]) for severity in sorted(run)] for run in means])
        x, mean = sorted(means[0]), curves.mean(axis=0)
        axes.plot(x, mean, color=look.colour, marker=look.marker, linestyle=look.dash)
        if len(curves) > 1:
            std = curves.std(axis=0, ddof=1)
            axes.fill_between(x, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="severity of the corruption", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _group_legend(figure, groups, looks_of)
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


def _with_severities(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if any(len(run) > 1 for run in _by_severity(group))]


def _group_legend(figure: Figure, groups: Sequence[Group], looks_of: dict[str, Look], lines: bool = True) -> None:
    handles = [_handle(looks_of[group.label], lines) for group in groups]
    add_legend(figure, handles, [group.label for group in groups])


def _handle(look: Look, lines: bool) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash if lines else "none")


def _offsets(count: int) -> np.ndarray:
    """Where in a slot of width 1 the dots of each group stand, so that they do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * (0.7 / count)


def _logarithmic(axis: Axis) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    label_powers(axis, *axis.get_view_interval())


def _with_ood(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if any(run.ood for run in group.results)]


def _with_old_experiences(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if group.results[0].old_experiences.size]


def _with_projection(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if any(run.projection for run in group.results)]


def _with_radii(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if any(run.radii_after_each_experience for run in group.results)]


FIGURE_KINDS = (
    FigureKind(
        "accuracy",
        "Accuracy after each experience",
        "Mean accuracy over the test sets of the experiences trained on so far (row means of the accuracy matrix up to "
        "the diagonal); line: mean over seeds, band: ± one standard deviation.",
        list,
        _accuracy_figure,
    ),
    FigureKind(
        "forgetting",
        "Forgetting per experience",
        "Best accuracy on an experience before the end of the stream minus its accuracy at the end (maximum-based, "
        "lower is better); dot: mean over seeds, bar: ± one standard deviation.",
        _with_old_experiences,
        _forgetting_figure,
    ),
    FigureKind(
        "id-ood",
        "In-distribution against out-of-distribution accuracy",
        "One point per run: average accuracy over the test experiences against the mean over the OOD streams, both "
        "after the last experience; dotted line, if in view: OOD = ID.",
        _with_ood,
        _id_ood_figure,
    ),
    FigureKind(
        "ood-streams",
        "OOD accuracy per stream",
        "Accuracy on each OOD stream after the last experience, for a corruption the mean over its severities; dot: "
        f"mean over seeds, bar: ± one standard deviation. The first {_MOST_STREAMS} streams.",
        _with_ood,
        _ood_streams_figure,
    ),
    FigureKind(
        "corruptions",
        "Accuracy over the severity of corruptions",
        "Mean accuracy over the corruptions of each severity, after the last experience; line: mean over seeds, band: "
        "± one standard deviation.",
        _with_severities,
        _corruptions_figure,
    ),
    FigureKind(
        "cost",
        "Cost against accuracy",
        "One point per run: seconds spent in training, evaluation not included, on a logarithmic axis, against average "
        "accuracy after the last experience. Times from different machines do not compare.",
        list,
        _cost_figure,
    ),
    FigureKind(
        "projection",
        "Radius and distance from the anchor, per tensor",
        "After the last experience, mean over seeds: solid, the radius within which a row of the tensor stays; dotted, "
        "the mean L1 distance that its rows did move; logarithmic axis, values below 1e-8 drawn at 1e-8.",
        _with_projection,
        _projection_figure,
    ),
    FigureKind(
        "radius",
        "Radius over experiences",
        "Line: median radius over the projected tensors at the end of each experience, band: their 10th to 90th "
        "percentile, both mean over seeds; logarithmic axis.",
        _with_radii,
        _radius_over_experiences_figure,
    ),
    FigureKind(
        "layers",
        "Radius and distance of each layer over experiences",
        "Radius, and mean L1 distance of the rows from the anchor, of each projected tensor (input at the top) at the "
        "end of each experience, mean over seeds, on one logarithmic scale; of many tensors, neighbours share a row, "
        f"their mean. The first {MOST_GROUPS} methods of the table that project.",
        with_layers_over_time,
        layers_figure,
    ),
    FigureKind(
        "labels",
        "Accuracy against the number of labels",
        "Average accuracy over the test experiences and mean over the OOD streams, after the last experience, for each "
        "budget of labels; line: mean over seeds, band: ± one standard deviation; logarithmic axis.",
        with_label_budgets,
        labels_figure,
    ),
    FigureKind(
        "pseudo-labels",
        "Pseudo-labels over training",
        "Share of the unlabelled images whose pseudo-label was used in an epoch, and percentage of these that were "
        "right; mean over seeds. The true labels are known to the evaluation only.",
        with_pseudo_labels,
        pseudo_labels_figure,
    ),
)
