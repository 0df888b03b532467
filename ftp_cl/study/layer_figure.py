"""The figure of radius and distance of each layer over the experiences, as heat maps."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ftp_cl.study.aggregate import Group, known_mean
from ftp_cl.study.loading import Result
from ftp_cl.study.style import PAGE_WIDTH, SMALLEST_RADIUS, Look, label_powers, new_figure, short_tensor_names

MOST_GROUPS = 4  # more make the page heavy
_MOST_ROWS = 30
_COLOURS = 32  # of the scale; with many matplotlib would draw it as pixels


def tells_layers(run: Result) -> bool:
    """Whether a run has written radii and distances after each experience."""
    return bool(run.radii_after_each_experience and run.distances_after_each_experience)


def layers_figure(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
    """Two heat maps for each group: radius, and mean distance from the anchor; tensors over experiences."""
    figure, panels = new_figure(PAGE_WIDTH, 0.9 + 2.9 * len(groups), panels=2, rows=len(groups))
    maps = []
    for group in groups:
        runs = [run for run in group.results if tells_layers(run)]
        maps += [
            _mean_map([run.radii_after_each_experience for run in runs]),
            _mean_map([run.distances_after_each_experience for run in runs]),
        ]
    everything = np.concatenate([values.ravel() for _, values in maps])
    low, high = np.nanmin(everything), np.nanmax(everything)
    scale = LogNorm(low, high if high > low else 2 * low)
    for number, (axes, (tensors, values)) in enumerate(zip(panels, maps, strict=True)):
        label = textwrap.shorten(groups[number // 2].label, 28, placeholder="…")
        _draw(axes, tensors, values, scale, names=number % 2 == 0)
        axes.set_title(f"{label}\nradius" if number % 2 == 0 else "\nmean distance", loc="left", fontsize=9)
    for axes in panels[-2:]:
        axes.set(xlabel="training experience")
    bar = figure.colorbar(panels[0].collections[0], ax=panels, location="bottom", aspect=40, pad=0.01)
    bar.set_label("row-wise L1 norm (weight units)")
    label_powers(bar.ax.xaxis, low, high)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _mean_map(runs: Sequence[Sequence[dict[str, float]]]) -> tuple[list[str], NDArray[np.float64]]:
    """Tensors, and their values [tensor, experience], mean over the runs; NaN where no run has one.

    Of many tensors, neighbours share a row, which has the name of the first.
    """
    length = min(map(len, runs))  # a killed run may have written fewer experiences than the others
    tensors = list(dict.fromkeys(name for run in runs for values in run for name in values))
    values = np.array([[[after.get(name, np.nan) for after in run[:length]] for name in tensors] for run in runs])
    in_a_row = -(-len(tensors) // _MOST_ROWS)
    rows = [values[:, i : i + in_a_row].reshape(-1, length) for i in range(0, len(tensors), in_a_row)]
    return tensors[::in_a_row], np.maximum([known_mean(row) for row in rows], SMALLEST_RADIUS)


def _draw(axes: Axes, tensors: Sequence[str], values: NDArray[np.float64], scale: LogNorm, names: bool) -> None:
    rows, experiences = values.shape
    x, y = np.arange(experiences + 1) + 0.5, np.arange(rows + 1) - 0.5
    axes.pcolormesh(x, y, values, norm=scale, cmap=colormaps["cividis"].resampled(_COLOURS))
    axes.grid(False)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    step = -(-rows // 15)
    shown = short_tensor_names(tensors)[::step] if names else []
    axes.set_yticks(range(0, rows, step) if names else [], shown, fontsize=7)
