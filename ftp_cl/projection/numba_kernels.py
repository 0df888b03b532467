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
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}, "error_model": "numpy"}

ROWS, COLUMNS, NORMS = 0, 1, 2

BLOCK = 1024
"""Elements whose sum is taken in single precision."""

LINE = 64
"""Bytes of a line of the cache, and of what is written past it at once."""


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


@intrinsic
def _subtract_line(typing_context: Any, to: Any, minuend: Any, subtrahend: Any, like: Any) -> Any:
    """Write the difference of two lines of numbers, given by address, without reading what it overwrites.

    The compiler makes no such ("non-temporal") stores by itself. `to` is a multiple of LINE.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(like)
        size = context.get_abi_sizeof(number)
        line = ir.VectorType(number, LINE // size).as_pointer()
        target, *sources = (builder.inttoptr(address, line) for address in arguments[:3])
        store = builder.store(
            builder.fsub(*(builder.load(source, align=size) for source in sources)), target, align=LINE
        )
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, like), generate


# ---- one row, or a block of it ---------------------------------------------------------------------------------------


@_compiled
def _dot(g, c):  # type: ignore[no-untyped-def]
    """<g, c> of a block."""
    dot = g.dtype.type(0)
    for i in range(len(g)):
        dot += g[i] * c[i]
    return dot


@_compiled
def _adam(w, m, v, g, hyper):  # type: ignore[no-untyped-def]
    """AdamW's step of a row; see `adam_rows`. With more arrays in one loop, the compiler cannot tell them apart."""
    number = w.dtype.type
    keep, new1, old2, new2 = number(hyper[0]), number(hyper[1]), number(hyper[2]), number(hyper[3])
    rate, root, eps = number(hyper[4]), number(hyper[5]), number(hyper[6])
    for i in range(len(w)):
        m[i] += new1 * (g[i] - m[i])
        v[i] = old2 * v[i] + new2 * g[i] * g[i]
        w[i] = keep * w[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)


@_compiled
def _distance(w, a):  # type: ignore[no-untyped-def]
    """The sum of |w - a| of a block."""
    norm = w.dtype.type(0)
    for i in range(len(w)):
        norm += abs(w[i] - a[i])
    return norm


@_compiled
def _subtract(c, w, a):  # type: ignore[no-untyped-def]
    """Take c = w - a of a block; returns sum |c|."""
    norm = c.dtype.type(0)
    for i in range(len(c)):
        c[i] = w[i] - a[i]
        norm += abs(c[i])
    return norm


@_compiled
def _subtract_past_cache(c, w, a):  # type: ignore[no-untyped-def]
    """Take c = w - a of a row of whole lines, c without a place in the cache: it is needed again in the next step."""
    size = len(c) * c.itemsize
    to, minuend, subtrahend = c.ctypes.data, w.ctypes.data, a.ctypes.data
    for offset in range(0, size, LINE):
        _subtract_line(to + offset, minuend + offset, subtrahend + offset, c[0])


@_compiled
def _project_row(w, a, c, radius, past_cache):  # type: ignore[no-untyped-def]
    """Project a row while it is in the cache; returns its norm. A row with NaN keeps its weights."""
    norm = 1e-8
    for start in range(0, len(w), BLOCK):
        end = start + BLOCK
        if past_cache:
            norm += _distance(w[start:end], a[start:end])
        else:
            norm += _subtract(c[start:end], w[start:end], a[start:end])
    if past_cache:
        _subtract_past_cache(c, w, a)
    ratio = radius / norm
    if ratio < 1:
        short = w.dtype.type(ratio)
        for i in range(len(w)):
            w[i] = a[i] + short * (w[i] - a[i])
    return norm


@_compiled
def _has_whole_lines(change):  # type: ignore[no-untyped-def]
    """Whether every row begins and ends with a line of the cache."""
    return change.ctypes.data % LINE == 0 and change.shape[1] * change.itemsize % LINE == 0


# ---- tables ----------------------------------------------------------------------------------------------------------


@_compiled
def vote_rows(table, zero, votes):  # type: ignore[no-untyped-def]
    """votes[piece] = sum over rows of <g_r, c'_r> / n_r. Addresses: norms, c', W0, g."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], zero), (rows, columns))
        gradient = carray(_pointer(table[piece, 5], zero), (rows, columns))
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
def project_rows(table, zero, radii, past_cache, largest):  # type: ignore[no-untyped-def]
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0; largest[piece] = max n_r. Addresses: norms, c, W0, W."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], zero), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        past = past_cache and _has_whole_lines(change)
        for row in range(rows):
            norms[row] = _project_row(weights[row], anchor[row], change[row], radii[piece], past)
        largest[piece] = norms.max()


@_compiled
def adam_rows(table, zero, radii, hyper, past_cache, largest):  # type: ignore[no-untyped-def]
    """AdamW's update of each row, followed by its projection as in `project_rows`.

    Addresses: norms, c, W0, W, g, exp_avg, exp_avg_sq. A line of `hyper`: 1 - lr * weight decay, 1 - beta1, beta2,
    1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), eps.
    """
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], zero), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        gradient = carray(_pointer(table[piece, 6], zero), (rows, columns))
        first = carray(_pointer(table[piece, 7], zero), (rows, columns))
        second = carray(_pointer(table[piece, 8], zero), (rows, columns))
        past = past_cache and _has_whole_lines(change)
        for row in range(rows):
            _adam(weights[row], first[row], second[row], gradient[row], hyper[piece])
            norms[row] = _project_row(weights[row], anchor[row], change[row], radii[piece], past)
        largest[piece] = norms.max()
