"""The figures of a report: what is drawn, for which groups, and the sentence that says how it was computed."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ftp_cl.runs.records import TensorProjection
from ftp_cl.study.aggregate import Group, Spread
from ftp_cl.study.label_figures import labels_figure, pseudo_labels_figure, with_label_budgets
from ftp_cl.study.layer_figure import MOST_GROUPS, layers_figure, tells_layers
from ftp_cl.study.loading import Result
from ftp_cl.study.ood_figures import MOST_STREAMS, by_severity, draw_corruptions, draw_id_ood, ood_streams_figure
from ftp_cl.study.style import (
    INK,
    PAGE_WIDTH,
    SMALLEST_RADIUS,
    Look,
    add_group_legend,
    add_legend,
    draw_dots,
    draw_line,
    draw_spreads,
    handle,
    label_powers,
    looks,
    new_figure,
    offsets,
    one_panel,
    short_tensor_names,
)
from ftp_cl.study.tables import named

MOST_DRAWN = 100  # groups: more can neither be told apart nor drawn in reasonable time

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
    draw: Callable[[Sequence[Group], Mapping[str, Look]], Figure]


def with_runs(tells: Callable[[Result], object]) -> Callable[[Sequence[Group]], list[Group]]:
    """What selects the groups that have such a run."""
    return lambda groups: [group for group in groups if any(map(tells, group.results))]


with_ood, with_pseudo_labels = with_runs(lambda run: run.ood), with_runs(lambda run: run.pseudo_labels)


def group_looks(groups: Sequence[Group]) -> dict[str, Look]:
    """One look per label, the same in all figures of a benchmark."""
    return dict(zip((group.label for group in groups), looks(len(groups)), strict=True))


def all_figures(groups: Sequence[Group]) -> Iterator[tuple[FigureKind, Figure]]:
    """Each figure that there is something to show in, of the first `MOST_DRAWN` groups of a benchmark."""
    drawn = groups[:MOST_DRAWN]
    looks_of = group_looks(drawn)
    for kind in FIGURE_KINDS:
        if shown := kind.select(drawn):
            yield kind, _named(kind.draw(shown, looks_of), groups)


def main_figure(groups: Sequence[Group]) -> Figure:
    """Accuracy after each experience, and beside it ID against OOD accuracy where a run has OOD streams.

    Shows the first `MOST_DRAWN` groups of a benchmark.
    """
    groups = groups[:MOST_DRAWN]
    looks_of = group_looks(groups)
    shifted = with_ood(groups)
    figure, axes = new_figure(9.4 if shifted else PAGE_WIDTH, 3.4, panels=2 if shifted else 1)
    _draw_accuracy(axes[0], groups, looks_of)
    if shifted:
        draw_id_ood(axes[1], shifted, looks_of)
    add_group_legend(figure, groups, looks_of)
    return _named(figure, groups)


def _named(figure: Figure, groups: Sequence[Group]) -> Figure:
    """With axes called by what the runs have measured."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if label := axis.get_label_text():
                axis.set_label_text(named(label, groups[0].results[0].metric))
    return figure


def _draw_accuracy(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
    for group in groups:
        curves = np.stack([result.accuracy_after_each_experience() for result in group.results])
        spreads = [Spread.of(accuracies) for accuracies in curves.T]
        draw_spreads(axes, np.arange(1, len(spreads) + 1), spreads, looks_of[group.label])
    axes.set(xlabel="training experience", ylabel="average accuracy so far (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_forgetting(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    for offset, group in zip(offsets(len(groups)), groups, strict=True):
        values = np.stack([result.forgetting_per_experience() for result in group.results])
        x = group.results[0].old_experiences + 1 + offset
        draw_dots(axes, x, values, looks_of[group.label], vertical=True)
    axes.grid(False, axis="x")
    axes.set(xlabel="experience", ylabel="forgetting (percentage points)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _projection_figure(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
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
    handles = [handle(looks_of[group.label], line=False) for group in groups]
    add_legend(figure, [*handles, *kinds.values()], [*(group.label for group in groups), *kinds])
    return figure


def _mean_over_runs(group: Group, tensor: str, read: Callable[[TensorProjection], float]) -> float:
    values = [read(run.projection[tensor]) for run in group.results if tensor in run.projection]
    finite = [value for value in values if math.isfinite(value)]  # a run may have diverged
    return statistics.fmean(finite) if finite else math.nan


def _draw_radius(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
    for group in groups:
        look = looks_of[group.label]
        radii = [run.radii_after_each_experience for run in group.results if run.radii_after_each_experience]
        length = min(len(run) for run in radii)  # a killed run may have written fewer experiences than the others
        # NaN where a run that diverged has no radius that is finite.
        tensors = [[list(after.values()) or [math.nan] for after in run[:length]] for run in radii]
        shares = [[np.percentile(values, (10, 50, 90)) for values in run] for run in tensors]
        low, median, high = np.mean(shares, axis=0).T
        x = np.arange(1, length + 1)
        draw_line(axes, x, median, look, (low, high))
    axes.set(xlabel="training experience", ylabel="radius (weight units)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _logarithmic(axes.yaxis)


def _draw_cost(axes: Axes, groups: Sequence[Group], looks_of: Mapping[str, Look]) -> None:
    for group in groups:
        points = [(max(run.train_seconds, _SHORTEST_TIME), run.average_accuracy) for run in group.results]
        look = looks_of[group.label]
        axes.plot(*zip(*points, strict=True), color=look.colour, marker=look.marker, linestyle="none")
    axes.set(xlabel="time in training (s)", ylabel="average accuracy (%)")
    _logarithmic(axes.xaxis)


def _logarithmic(axis: Axis) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    label_powers(axis, *axis.get_view_interval())


FIGURE_KINDS = (
    FigureKind(
        "accuracy",
        "Accuracy after each experience",
        "Mean accuracy over the test sets of the experiences trained on so far (row means of the accuracy matrix up to "
        "the diagonal); line: mean over seeds, band: ± one standard deviation.",
        list,
        one_panel(_draw_accuracy, 3.0),
    ),
    FigureKind(
        "forgetting",
        "Forgetting per experience",
        "Best accuracy on an experience before the end of the stream minus its accuracy at the end (maximum-based, "
        "lower is better); dot: mean over seeds, bar: ± one standard deviation.",
        lambda groups: [group for group in groups if group.results[0].old_experiences.size],
        one_panel(_draw_forgetting, 3.0),
    ),
    FigureKind(
        "id-ood",
        "In-distribution against out-of-distribution accuracy",
        "One point per run: average accuracy over the test experiences against the mean over the OOD streams, both "
        "after the last experience; dotted line, if in view: OOD = ID.",
        with_ood,
        one_panel(draw_id_ood, 3.4, lines=False),
    ),
    FigureKind(
        "ood-streams",
        "OOD accuracy per stream",
        "Accuracy on each OOD stream after the last experience, for a corruption the mean over its severities; dot: "
        f"mean over seeds, bar: ± one standard deviation. The first {MOST_STREAMS} streams.",
        with_ood,
        ood_streams_figure,
    ),
    FigureKind(
        "corruptions",
        "Accuracy over the severity of corruptions",
        "Mean accuracy over the corruptions of each severity, after the last experience; line: mean over seeds, band: "
        "± one standard deviation.",
        lambda groups: [group for group in groups if any(len(run) > 1 for run in by_severity(group))],
        one_panel(draw_corruptions, 3.0),
    ),
    FigureKind(
        "cost",
        "Cost against accuracy",
        "One point per run: seconds spent in training, evaluation not included, on a logarithmic axis, against average "
        "accuracy after the last experience. Times from different machines do not compare.",
        list,
        one_panel(_draw_cost, 3.4, lines=False),
    ),
    FigureKind(
        "projection",
        "Radius and distance from the anchor, per tensor",
        "After the last experience, mean over seeds: solid, the radius within which a row of the tensor stays; dotted, "
        "the mean L1 distance that its rows did move; logarithmic axis, values below 1e-8 drawn at 1e-8.",
        with_runs(lambda run: run.projection),
        _projection_figure,
    ),
    FigureKind(
        "radius",
        "Radius over experiences",
        "Line: median radius over the projected tensors at the end of each experience, band: their 10th to 90th "
        "percentile, both mean over seeds; logarithmic axis.",
        with_runs(lambda run: run.radii_after_each_experience),
        one_panel(_draw_radius, 3.0),
    ),
    FigureKind(
        "layers",
        "Radius and distance of each layer over experiences",
        "Radius, and mean L1 distance of the rows from the anchor, of each projected tensor (input at the top) at the "
        "end of each experience, mean over seeds, on one logarithmic scale; of many tensors, neighbours share a row, "
        f"their mean. The first {MOST_GROUPS} methods of the table that project.",
        lambda groups: with_runs(tells_layers)(groups)[:MOST_GROUPS],
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
