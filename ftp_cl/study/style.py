"""How all figures look: colours, markers, fonts; and their forms, SVG for the page and SVG or PNG files."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from ftp_cl.study.aggregate import Group, Spread

PAGE_WIDTH = 4.4  # inches: text keeps a readable size on a phone
SMALLEST_RADIUS = 1e-8  # of the algorithm, and the least that logarithmic scales show
_LONGEST_TICK = 24  # characters

# Colours that the page replaces by its own, so that figures follow light and dark mode; unlike any other in use.
INK, GRID, SURFACE = "#1b1b1d", "#dcdcdf", "#fefefe"
_PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)", SURFACE: "var(--surface)"}

# Okabe and Ito's colour-blind safe palette; without yellow, which cannot be seen on white, and with ink for black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
Dash: TypeAlias = Literal["-", "--", "-.", ":"]
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "lines.markeredgecolor": SURFACE,
    "lines.markeredgewidth": 0.6,
    "text.parse_math": False,  # "$" in a name from a result file is a dollar sign
    "text.usetex": False,
    "savefig.dpi": 200,
}
_LEGEND_CHARACTERS_PER_INCH = 11
_PER_INCH = 72


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash of one group, the same in all figures; no two of the first 252 groups look the same."""

    colour: str
    marker: str
    dash: Dash


def looks(count: int) -> list[Look]:
    """The looks of `count` groups."""
    return [
        Look(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], DASHES[i // len(PALETTE) % len(DASHES)])
        for i in range(count)
    ]


@contextmanager
def drawing() -> Iterator[None]:
    """Figures made and saved in here look the same whatever the user's matplotlib settings are."""
    with warnings.catch_warnings(), matplotlib.style.context(["default", _RC]):
        # Names may be in scripts that the font lacks: the browser has a font for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float, panels: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes beside each other in each row, row by row; size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    return figure, list(figure.subplots(rows, panels, squeeze=False).flat)


def one_panel(
    draw: Callable[[Axes, Sequence[Group], Mapping[str, Look]], None], height: float, lines: bool = True
) -> Callable[[Sequence[Group], Mapping[str, Look]], Figure]:
    """What makes a figure of one panel: axes that `draw` draws groups on, and their legend.

    Args:
        draw: called with axes, groups, and the look of each label.
        height: inches, without the legend.
        lines: groups are lines in this figure, not dots alone.
    """

    def whole(groups: Sequence[Group], looks_of: Mapping[str, Look]) -> Figure:
        figure, (axes,) = new_figure(PAGE_WIDTH, height)
        draw(axes, groups, looks_of)
        add_group_legend(figure, groups, looks_of, lines)
        return figure

    return whole


def label_powers(axis: Axis, low: float, high: float) -> None:
    """Readable numbers on a logarithmic axis from `low` to `high`."""
    if high < 5 * low:  # where powers of ten and their multiples would leave hardly a number
        axis.set_major_locator(MaxNLocator(4))
    else:
        # Less than two powers of ten would leave a single number.
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,), numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def short_tensor_names(tensors: Sequence[str]) -> list[str]:
    """Names without the modules that all of them begin with, and without the `.weight` that most end with."""
    parts = [tensor.removesuffix(".weight").split(".") for tensor in tensors]
    modules = zip(*(own[:-1] for own in parts), strict=False)
    common = len(list(takewhile(lambda names: len(set(names)) == 1, modules)))
    return [shortened(".".join(own[common:])) for own in parts]


def shortened(name: str) -> str:
    """A name that leaves room for the axes: the ends of tensor names tell more than their middle."""
    return name if len(name) <= _LONGEST_TICK else f"{name[:8]}…{name[9 - _LONGEST_TICK :]}"


def draw_line(
    axes: Axes, x: ArrayLike, y: ArrayLike, look: Look, band: tuple[ArrayLike, ArrayLike] | None = None
) -> None:
    """A line, and a band between two others if there is one."""
    axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.dash)
    if band is not None:
        axes.fill_between(x, *band, color=look.colour, alpha=0.15, linewidth=0)


def draw_spreads(axes: Axes, x: ArrayLike, spreads: Sequence[Spread], look: Look) -> None:
    """Means as a line, plus and minus one standard deviation as a band."""
    mean, std = _means_and_deviations(spreads)
    draw_line(axes, x, mean, look, (mean - std, mean + std) if std.any() else None)


def draw_dots(axes: Axes, positions: NDArray, values: NDArray[np.float64], look: Look, vertical: bool) -> None:
    """Mean over the seeds (rows; NaN where a seed lacks the value) as dots, one standard deviation as bars."""
    mean, std = _means_and_deviations([Spread.of(column[~np.isnan(column)]) for column in values.T])
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


def _means_and_deviations(spreads: Sequence[Spread]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Those of one value have no deviation, which is drawn as 0."""
    return np.array([spread.mean for spread in spreads]), np.array([spread.std or 0.0 for spread in spreads])


def offsets(count: int) -> NDArray[np.floating]:
    """Where in a slot of width 1 the dots of each group stand, so that they do not cover each other."""
    return (np.arange(count) - (count - 1) / 2) * (0.7 / count)


def handle(look: Look, line: bool = True) -> Line2D:
    """What stands for a look in a legend."""
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash if line else "none")


def add_group_legend(figure: Figure, groups: Sequence[Group], looks_of: Mapping[str, Look], lines: bool = True) -> None:
    """A legend of groups by their labels; `lines`: they are lines in this figure, not dots alone."""
    add_legend(figure, [handle(looks_of[group.label], lines) for group in groups], [group.label for group in groups])


def add_legend(figure: Figure, handles: Sequence, labels: Sequence[str]) -> None:
    """Put a legend beneath the axes and make the figure as much taller as the legend needs."""
    width, height = figure.get_size_inches()
    characters = int(width * _LEGEND_CHARACTERS_PER_INCH)
    longest = max(map(len, labels))
    columns = max(1, min(len(labels), characters // (longest + 6)))
    wrapped = [textwrap.fill(label, characters - 6) for label in labels]
    rows = sum(1 + label.count("\n") for label in wrapped) if columns == 1 else -(-len(labels) // columns)
    figure.set_size_inches(width, height + 0.19 * rows + 0.1)
    figure.legend(handles, wrapped, loc="outside lower left", ncols=columns, borderaxespad=0.2)


def page_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for a page: text stays text, colours follow the page, ids begin with `name`."""
    svg = _svg(figure, fonttype="none")
    svg = svg[svg.index("<svg") :]
    for colour, replacement in _PAGE_COLOURS.items():
        svg = svg.replace(colour, replacement)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    # Several figures stand in one page: their ids must not meet.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    width = figure.get_size_inches()[0] * _PER_INCH
    return svg.replace("<svg ", f'<svg style="max-width:{width * 1.5:.0f}px" aria-hidden="true" ', 1)


def file_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as the content of a file, ".svg" (text as outlines: it looks the same everywhere) or ".png"."""
    figure.set_facecolor("white")
    if suffix == ".svg":
        return _svg(figure, fonttype="path").encode()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure, fonttype: str) -> str:
    buffer = io.StringIO()
    # A fixed salt and no date or version: the same results give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "ftp_cl", "svg.fonttype": fonttype}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
