"""The accuracy matrix as a heat map in SVG, written out directly.

A report has one for every group; matplotlib would take 0.3 s for each, most of a large report's time.
"""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from ftp_cl.study.aggregate import known_mean

# In the units of the viewBox, which are about pixels.
_CELL, _SMALL_CELL = 34.0, 26.0
_LEFT, _BELOW = 44.0, 40.0  # room for the axes
_MOST_TICKS = 10
_MOST_NUMBERS = 40  # experiences; with more the numbers could not be read
_MOST_CELLS = 80  # in a row; of more experiences, neighbours share a cell: a page must stay one that opens


def matrix_svg(matrix: NDArray[np.float64]) -> str:
    """An <svg> element: one coloured cell with its number per accuracy, axes named, empty where nothing was evaluated.

    Large matrices have no numbers; in very large ones a cell is the mean of neighbours.

    Args:
        matrix: a row for each training, a column for each test experience, percent; NaN where not evaluated.
    """
    shared = -(-max(matrix.shape) // _MOST_CELLS)
    cells = _block_means(matrix, shared)
    rows, columns = cells.shape
    cell = _CELL if max(cells.shape) <= _MOST_TICKS else _SMALL_CELL
    across, down = max(cell, 150 / columns), max(cell, 150 / rows)  # of a cell; the axes' names need 150
    font = min(14.0, 0.42 * min(across, down)) if max(matrix.shape) <= _MOST_NUMBERS else None
    width, height = _LEFT + columns * across, rows * down + _BELOW
    parts = [
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{1.2 * width:.0f}px" aria-hidden="true" '
        f'font-size="13" text-anchor="middle" fill="currentColor">'
    ]
    for (row, column), accuracy in np.ndenumerate(cells):
        if not math.isnan(accuracy):
            parts.append(_cell(_LEFT + column * across, row * down, across, down, float(accuracy), font))
    for i in range(0, rows, -(-rows // _MOST_TICKS)):
        middle = (i + 0.5) * down
        parts.append(f'<text x="{_LEFT - 6:g}" y="{middle + 4:.1f}" text-anchor="end">{i * shared + 1}</text>')
    for j in range(0, columns, -(-columns // _MOST_TICKS)):
        parts.append(f'<text x="{_LEFT + (j + 0.5) * across:.1f}" y="{rows * down + 16:g}">{j * shared + 1}</text>')
    parts.append(f'<text x="{_LEFT + columns * across / 2:g}" y="{rows * down + 34:g}">test experience</text>')
    parts.append(f'<text transform="translate(12 {rows * down / 2:g}) rotate(-90)">after experience</text></svg>')
    return "".join(parts)


def _block_means(matrix: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Mean of the known entries of each block of `size` x `size`; NaN where none is known."""
    padded = np.pad(matrix, [(0, -length % size) for length in matrix.shape], constant_values=np.nan)
    rows, columns = (length // size for length in padded.shape)
    blocks = padded.reshape(rows, size, columns, size).transpose(1, 3, 0, 2)
    return known_mean(blocks.reshape(size * size, rows, columns))


def _cell(x: float, y: float, width: float, height: float, accuracy: float, font: float | None) -> str:
    red, green, blue, _ = colour = colormaps["cividis"](min(accuracy, 100.0) / 100)
    rect = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{to_hex(colour)}"/>'
    if font is None:
        return rect
    text = "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#fff"
    across, down = x + width / 2, y + height / 2 + 0.36 * font
    return f'{rect}<text x="{across:.1f}" y="{down:.1f}" font-size="{font:.1f}" fill="{text}">{accuracy:.0f}</text>'
