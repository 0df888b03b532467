"""The accuracy matrix as a heat map in SVG, written out directly.

A report has one for every group; matplotlib would take 0.3 s for each, most of a large report's time.
"""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

# In the units of the viewBox, which are about pixels.
_CELL, _SMALL_CELL = 34.0, 26.0
_LEFT, _BELOW = 44.0, 40.0  # room for the axes
_MOST_TICKS = 10


def matrix_svg(matrix: NDArray[np.float64]) -> str:
    """An <svg> element: one coloured cell with its number per accuracy, axes named, empty where nothing was evaluated.

    Args:
        matrix: a row for each training, a column for each test experience, percent; NaN where not evaluated.
    """
    size = len(matrix)
    cell = max(_CELL if size <= _MOST_TICKS else _SMALL_CELL, 150 / size)  # the axes' names need 150
    side, font = size * cell, min(14.0, 0.42 * cell)
    width, height = _LEFT + side, side + _BELOW
    parts = [
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{1.2 * width:.0f}px" aria-hidden="true" '
        f'font-size="13" text-anchor="middle" fill="currentColor">'
    ]
    for (row, column), accuracy in np.ndenumerate(matrix):
        if not math.isnan(accuracy):
            parts.append(_cell(_LEFT + column * cell, row * cell, cell, float(accuracy), font))
    for i in range(0, size, -(-size // _MOST_TICKS)):
        middle = (i + 0.5) * cell
        parts.append(f'<text x="{_LEFT - 6:g}" y="{middle + 4:.1f}" text-anchor="end">{i + 1}</text>')
        parts.append(f'<text x="{_LEFT + middle:.1f}" y="{side + 16:g}">{i + 1}</text>')
    middle = side / 2
    parts.append(f'<text x="{_LEFT + middle:g}" y="{side + 34:g}">test experience</text>')
    parts.append(f'<text transform="translate(12 {middle:g}) rotate(-90)">after experience</text></svg>')
    return "".join(parts)


def _cell(x: float, y: float, side: float, accuracy: float, font: float) -> str:
    red, green, blue, _ = colour = colormaps["cividis"](min(accuracy, 100.0) / 100)
    text = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#fff"
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" fill="{to_hex(colour)}"/>'
        f'<text x="{x + side / 2:.1f}" y="{y + side / 2 + 0.36 * font:.1f}" font-size="{font:.1f}" fill="{text}">'
        f"{accuracy:.0f}</text>"
    )
