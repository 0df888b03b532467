"""The loops that Numba compiles: each works on a table of tensors, given by address, in one call without the GIL.

A table has one line for each piece of consecutive rows of one tensor, in int64: rows, elements per row, then addresses
of the first element of this piece in the tensors that the loop's docstring names. Elements have the dtype of the
argument `zero`, row norms are float64. Sums over a block of a row are taken in the tensor's dtype, in as many partial
sums as a vector has lanes, and those of blocks in float64: nearly as exact as float64 throughout, and faster.
"""

import logging
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz"}, "error_model": "numpy"}

ROWS, COLUMNS, NORMS = 0, 1, 2

BLOCK = 1024
"""Elements whose sum is taken in single precision; what a block reads twice is still in the innermost cache."""


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the machine code on disk for later runs where a place can be written."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(loop)
    except RuntimeError:
        logger.warning("No folder to keep compiled code in (set NUMBA_CACHE_DIR): it is compiled in every run.")
        return numba.njit(**_OPTIONS)(loop)


@intrinsic
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the dtype of `like` at an address."""
    pointer = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, like), generate


# ---- one row, or a block of it ---------------------------------------------------------------------------------------


@_compiled
def _dot(g, c):  # type: ignore[no-untyped-def]
    """<g, c> of a block."""
    dot = g.dtype.type(0)
    for i in range(len(g)):
        dot += g[i] * c[i]
    return dot


@_compiled
def _subtract(c, w, a):  # type: ignore[no-untyped-def]
    """Take c = w - a; returns sum |c|."""
    norm = c.dtype.type(0)
    for i in range(len(c)):
        c[i] = w[i] - a[i]
        norm += abs(c[i])
    return norm


@_compiled
def _moments(m, v, g, new1, old2, new2):  # type: ignore[no-untyped-def]
    """Adam's running means. A loop of its own: with more arrays in one, the compiler gives up proving them apart."""
    for i in range(len(m)):
        m[i] += new1 * (g[i] - m[i])
        v[i] = old2 * v[i] + new2 * g[i] * g[i]


@_compiled
def _adam_subtract(c, w, a, m, v, keep, rate, root, eps):  # type: ignore[no-untyped-def]
    """AdamW's step of w, then c = w - a; returns sum |c|."""
    norm = c.dtype.type(0)
    for i in range(len(c)):
        w[i] = keep * w[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)
        c[i] = w[i] - a[i]
        norm += abs(c[i])
    return norm


@_compiled
def _shorten(w, a, c, ratio):  # type: ignore[no-untyped-def]
    """Set a row of weights to the boundary of its ball if it lies outside. NaN is left alone."""
    if ratio < 1:
        short = w.dtype.type(ratio)
        for i in range(len(w)):
            w[i] = a[i] + short * c[i]


# ---- tables ----------------------------------------------------------------------------------------------------------


@_compiled
def vote_rows(table, zero, votes):  # type: ignore[no-untyped-def]
    """votes[piece] = sum over rows of <g_r, c'_r> / n_r. Addresses: norms, g, c'."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        gradient = carray(_pointer(table[piece, 3], zero), (rows, columns))
        change = carray(_pointer(table[piece, 4], zero), (rows, columns))
        vote = 0.0
        for row in range(rows):
            g, c = gradient[row], change[row]
            dot = 0.0
            for start in range(0, columns, BLOCK):
                end = min(start + BLOCK, columns)
                dot += _dot(g[start:end], c[start:end])
            vote += dot / norms[row]
        votes[piece] = vote


@_compiled
def project_rows(table, zero, radii, largest):  # type: ignore[no-untyped-def]
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0; largest[piece] = max n_r. Addresses: norms, c, W0, W."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], zero), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        for row in range(rows):
            c, a, w = change[row], anchor[row], weights[row]
            norm = 0.0
            for start in range(0, columns, BLOCK):
                end = min(start + BLOCK, columns)
                norm += _subtract(c[start:end], w[start:end], a[start:end])
            norms[row] = norm + 1e-8
            _shorten(w, a, c, radii[piece] / norms[row])
        largest[piece] = norms.max()


@_compiled
def adam_rows(table, zero, radii, hyper, largest):  # type: ignore[no-untyped-def]
    """AdamW's update of each row, followed by its projection as in `project_rows`.

    Addresses: norms, c, W0, W, g, exp_avg, exp_avg_sq. A line of `hyper`: 1 - lr * weight decay, 1 - beta1, beta2,
    1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), eps.
    """
    number = type(zero)
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], zero), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        gradient = carray(_pointer(table[piece, 6], zero), (rows, columns))
        first = carray(_pointer(table[piece, 7], zero), (rows, columns))
        second = carray(_pointer(table[piece, 8], zero), (rows, columns))
        keep, new1 = number(hyper[piece, 0]), number(hyper[piece, 1])
        old2, new2 = number(hyper[piece, 2]), number(hyper[piece, 3])
        rate, root, eps = number(hyper[piece, 4]), number(hyper[piece, 5]), number(hyper[piece, 6])
        for row in range(rows):
            c, a, w = change[row], anchor[row], weights[row]
            g, m, v = gradient[row], first[row], second[row]
            norm = 0.0
            for start in range(0, columns, BLOCK):
                end = min(start + BLOCK, columns)
                mb, vb, wb, cb = m[start:end], v[start:end], w[start:end], c[start:end]
                _moments(mb, vb, g[start:end], new1, old2, new2)
                norm += _adam_subtract(cb, wb, a[start:end], mb, vb, keep, rate, root, eps)
            norms[row] = norm + 1e-8
            _shorten(w, a, c, radii[piece] / norms[row])
        largest[piece] = norms.max()
