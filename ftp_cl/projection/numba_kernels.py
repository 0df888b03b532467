"""The loops that Numba compiles: each works on a table of tensors, given by address, in one call without the GIL.

A table has one line for each piece of consecutive rows of one tensor, in int64: rows, elements per row, then addresses
of the first element of this piece in the tensors that the loop's docstring names. Elements have the dtype of the
argument `zero`, those of c and c' that of `kept`, row norms are float64. Sums over a block of a row are taken in the
tensor's dtype, in as many partial sums as a vector has lanes, and those of blocks in float64: nearly as exact as
float64 throughout, and faster. bfloat16 stands here as uint16.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from ftp_cl.projection import numba_lanes, radius
from ftp_cl.projection.numba_lanes import LINE, Lanes, narrow, widen
from ftp_cl.projection.rows import NORM_EPSILON

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}, "error_model": "numpy"}

_moved = numba.njit(forceinline=True, error_model="numpy")(radius.moved)

# Numba finds out by itself that this file has changed since it compiled a loop, but not that what it imports has.
_IMPORTED = hashlib.sha256(
    b"".join(Path(str(part.__file__)).read_bytes() for part in (numba_lanes, radius))
).hexdigest()

ROWS, COLUMNS, NORMS = 0, 1, 2

BLOCK = 1024
"""Elements whose sum is taken in single precision."""

LONG = 128
"""Elements from which on it pays to write a row past the cache."""


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the machine code on disk for later runs where a place can be written."""
    loop.__qualname__ += f"-{_IMPORTED[:8]}"  # part of the file's name there
    try:
        return numba.njit(cache=True, **_OPTIONS)(loop)
    except RuntimeError:
        logger.warning("No folder to keep compiled code in (set NUMBA_CACHE_DIR): it is compiled in every run.")
        return numba.njit(**_OPTIONS)(loop)


def _inlined(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Part of whatever calls it: a call takes as long as a short row."""
    return numba.njit(forceinline=True, **_OPTIONS)(loop)


@intrinsic
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the dtype of `like` at an address."""
    pointer = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, like), generate


@intrinsic
def _subtract_line(typing_context: Any, to: Any, w: Any, a: Any, ahead: Any, zero: Any, kept: Any) -> Any:
    """Write c = w - a past the cache, a line of it, and fetch w and a `ahead` bytes further on; all by address.

    `to`, where c is written, is a multiple of LINE.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        changes = Lanes(context, builder, kept, LINE // (kept.bitwidth // 8))
        lanes = Lanes(context, builder, zero, changes.count)
        target, weights, anchor = arguments[:3]
        for address in (weights, anchor):
            lanes.prefetch(builder.add(address, arguments[3]))
        change = lanes.load(lanes.pointer(weights)) - lanes.load(lanes.pointer(anchor))
        changes.store_past_cache(change, changes.pointer(target))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero, kept), generate


@intrinsic
def _shorten_line(typing_context: Any, to: Any, w: Any, a: Any, ahead: Any, zero: Any, kept: Any, ratio: Any) -> Any:
    """As `_subtract_line`; the weights become anchor + ratio * change."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        changes = Lanes(context, builder, kept, LINE // (kept.bitwidth // 8))
        lanes = Lanes(context, builder, zero, changes.count)
        target, weights, anchor = arguments[:3]
        for address in (weights, anchor):
            lanes.prefetch(builder.add(address, arguments[3]))
        centre = lanes.load(lanes.pointer(anchor))
        change = lanes.rounded(lanes.load(lanes.pointer(weights)) - centre)
        changes.store_past_cache(change, changes.pointer(target))
        lanes.store(change.times_plus(lanes.spread(arguments[6]), centre), lanes.pointer(weights))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero, kept, ratio), generate


@intrinsic(prefer_literal=True)
def _adam(
    typing_context: Any, count: Any, norm: Any, w: Any, a: Any, g: Any, m: Any, v: Any, zero: Any, hyper: Any
) -> Any:
    """AdamW's step of `count` weights, with |w - a| added to `norm`; all by address. See `adam_rows` for `hyper`.

    Each operation is rounded as in torch's fused AdamW on CPUs that multiply and add at once.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums = Lanes(context, builder, hyper.dtype, count.literal_value)
        lanes = Lanes(context, builder, zero, count.literal_value)
        norms, pointers = sums.pointer(arguments[1]), [lanes.pointer(address) for address in arguments[2:7]]
        w, a, g, m, v = (lanes.load(pointer) for pointer in pointers)
        spread = [sums.spread(number) for number in cgutils.unpack_tuple(builder, arguments[8])]
        keep, new1, old2, new2, rate, root, eps, sign = spread
        g = sign * g
        m = (g - m).times_plus(new1, m)
        v = g.times_plus(new2 * g, old2 * v)
        nothing = sums.spread(context.get_constant(hyper.dtype, 0.0))
        kept = keep.times_plus(w, nothing)  # a mere product would be rounded together with the difference
        w = lanes.rounded(kept - rate * m / (v.apply("sqrt") / root + eps))
        sums.store(sums.load(norms) + lanes.rounded(w - a).apply("fabs"), norms)
        for new, pointer in zip((w, m, v), (pointers[0], *pointers[3:]), strict=True):
            lanes.store(new, pointer)
        return context.get_dummy_value()

    return types.void(count, *[types.int64] * 6, zero, hyper), generate


# ---- one row, or a block of it ---------------------------------------------------------------------------------------


@_inlined
def _dot(g, c):  # type: ignore[no-untyped-def]
    """<g, c> of a block."""
    dot = widen(g.dtype.type(0))
    for i in range(len(g)):
        dot += widen(g[i]) * widen(c[i])
    return dot


@_inlined
def _change(w, a):  # type: ignore[no-untyped-def]
    """W - a of one weight, rounded as the weights are."""
    return widen(narrow(widen(w) - widen(a), w))


@_inlined
def _distance(w, a):  # type: ignore[no-untyped-def]
    """The sum of |w - a| of a block."""
    distance = widen(w.dtype.type(0))
    for i in range(len(w)):
        distance += abs(_change(w[i], a[i]))
    return distance


@_inlined
def _norm(w, a):  # type: ignore[no-untyped-def]
    """n_r of w - a, a row."""
    norm = NORM_EPSILON
    for start in range(0, len(w), BLOCK):
        end = min(start + BLOCK, len(w))
        norm += _distance(w[start:end], a[start:end])
    return norm


@_inlined
def _place_few(w, a, c, ratio):  # type: ignore[no-untyped-def]
    """As `_place`, for few elements."""
    zero, kept = w.dtype.type(0), c.dtype.type(0)
    if ratio < 1:
        short = type(widen(zero))(ratio)
        for i in range(len(w)):
            centre = widen(a[i])
            change = _change(w[i], a[i])
            c[i] = narrow(change, kept)
            w[i] = narrow(centre + short * change, zero)
    else:
        for i in range(len(w)):
            c[i] = narrow(_change(w[i], a[i]), kept)


@_inlined
def _place(w, a, c, ratio, ahead):  # type: ignore[no-untyped-def]
    """Keep c = w - a of a row for the next step, and set w to the boundary of its ball if it lies outside.

    Long rows do not give c a place in the cache: its old values were needed before, its new ones are in the next step.
    Meanwhile the lines of w and a that are `ahead` bytes further on come into the cache; 0 for none.
    """
    size = c.itemsize
    at_once = LINE // size
    start = (-c.ctypes.data % LINE) // size
    end = start + (len(c) - start) // at_once * at_once
    if len(c) < LONG:
        _place_few(w, a, c, ratio)
        return
    to, weights, anchor, weight_size = c.ctypes.data, w.ctypes.data, a.ctypes.data, w.itemsize
    zero, kept = w.dtype.type(0), c.dtype.type(0)
    if ratio < 1:  # not if it is NaN
        short = type(widen(zero))(ratio)
        for i in range(start, end, at_once):
            at = i * weight_size
            _shorten_line(to + i * size, weights + at, anchor + at, ahead, zero, kept, short)
    else:
        for i in range(start, end, at_once):
            at = i * weight_size
            _subtract_line(to + i * size, weights + at, anchor + at, ahead, zero, kept)
    if end - start < len(c):
        _place_few(w[:start], a[:start], c[:start], ratio)
        _place_few(w[end:], a[end:], c[end:], ratio)


@_inlined
def _vote(norms, g, c):  # type: ignore[no-untyped-def]
    """The sum over rows of <g_r, c_r> / n_r."""
    vote, columns = 0.0, g.shape[1]
    for row in range(len(norms)):
        dot = 0.0
        for start in range(0, columns, BLOCK):
            end = min(start + BLOCK, columns)
            dot += _dot(g[row, start:end], c[row, start:end])
        vote += dot / norms[row]
    return vote


@_inlined
def _adam_row(w, a, g, m, v, sums, hyper):  # type: ignore[no-untyped-def]
    """AdamW's step of a row; returns n_r of the new w - a. `sums` is scratch, a number for each weight of a line."""
    norm, size, zero = NORM_EPSILON, w.itemsize, w.dtype.type(0)
    pw, pa, pg, pm, pv, ps = w.ctypes.data, a.ctypes.data, g.ctypes.data, m.ctypes.data, v.ctypes.data, sums.ctypes.data
    for start in range(0, len(w), BLOCK):
        stop = min(start + BLOCK, len(w)) * size
        whole = stop - (stop - start * size) % LINE
        sums[:] = 0
        for at in range(start * size, whole, LINE):
            if size == 2:
                _adam(32, ps, pw + at, pa + at, pg + at, pm + at, pv + at, zero, hyper)
            elif size == 4:
                _adam(16, ps, pw + at, pa + at, pg + at, pm + at, pv + at, zero, hyper)
            else:
                _adam(8, ps, pw + at, pa + at, pg + at, pm + at, pv + at, zero, hyper)
        for at in range(whole, stop, size):
            _adam(1, ps, pw + at, pa + at, pg + at, pm + at, pv + at, zero, hyper)
        norm += sums.sum()
    return norm


# ---- tables ----------------------------------------------------------------------------------------------------------


@_compiled
def vote_rows(table, zero, kept, votes):  # type: ignore[no-untyped-def]
    """votes[piece] = sum over rows of <g_r, c'_r> / n_r. Addresses: norms, c', W0, g."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], kept), (rows, columns))
        gradient = carray(_pointer(table[piece, 5], zero), (rows, columns))
        votes[piece] = _vote(norms, gradient, change)


@_compiled
def project_rows(table, zero, kept, radii, largest):  # type: ignore[no-untyped-def]
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0; largest[piece] = max n_r. Addresses: norms, c, W0, W."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], kept), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        ahead = columns * weights.itemsize  # to the next row, fetched while one is written
        for row in range(rows):
            norms[row] = _norm(weights[row], anchor[row])
            _place(weights[row], anchor[row], change[row], radii[piece] / norms[row], ahead)
        largest[piece] = norms.max()


@_compiled
def add_to_each(addresses, amount, sums):  # type: ignore[no-untyped-def]
    """Add a float32 to that at each address; `sums` are the results."""
    for i in range(len(addresses)):
        number = carray(_pointer(addresses[i], amount), (1,))
        number[0] += amount
        sums[i] = number[0]


@_compiled
def adam_rows(table, zero, kept, hyper, partial, votes, radii, largest):  # type: ignore[no-untyped-def]
    """All of a step of AdamW followed by FTP, tensor by tensor: a gradient is in the cache still when Adam takes it.

    Addresses: norms, c' (c afterwards), W0, W, g, exp_avg, exp_avg_sq. Where the vote is not finite, nothing is done.

    Args:
        table: see above.
        zero: of the weights' dtype.
        kept: of the change's dtype.
        hyper: of each piece, 1 - lr * weight decay, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1^t),
            sqrt(1 - beta2^t), eps, -1 if the loss is to grow and else 1, and FTP's k and mu.
        partial: whether a piece is not the whole tensor, whose vote is given then.
        votes: votes[piece], of the whole tensor; written unless it is given.
        radii: of each piece, gamma, its two moments and its steps, as `moved` takes and leaves them.
        largest: largest[piece] = max n_r; written.
    """
    number = type(widen(zero))
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], kept), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        gradient = carray(_pointer(table[piece, 6], zero), (rows, columns))
        first = carray(_pointer(table[piece, 7], zero), (rows, columns))
        second = carray(_pointer(table[piece, 8], zero), (rows, columns))
        if not partial[piece]:
            votes[piece] = _vote(norms, gradient, change)
        if not np.isfinite(votes[piece]):
            continue
        h, ball, ahead = hyper[piece], radii[piece], columns * weights.itemsize
        vote, k, mu = h[7] * votes[piece], h[8], h[9]
        ball[0], ball[1], ball[2], ball[3] = _moved(ball[0], ball[1], ball[2], ball[3], vote, k, mu)
        sums = np.full(LINE // weights.itemsize, widen(zero))
        decay_and_moments = number(h[0]), number(h[1]), number(h[2]), number(h[3])
        adam = (*decay_and_moments, number(h[4]), number(h[5]), number(h[6]), number(h[7]))
        if columns >= LONG:
            for row in range(rows):
                w, a = weights[row], anchor[row]
                norms[row] = _adam_row(w, a, gradient[row], first[row], second[row], sums, adam)
                _place(w, a, change[row], ball[0] / norms[row], ahead)
            largest[piece] = norms.max()
            continue
        for top in range(0, rows, BLOCK // columns):  # row by row, short ones would leave most lanes empty
            some = slice(top, min(top + BLOCK // columns, rows))
            w, a, g = weights[some].ravel(), anchor[some].ravel(), gradient[some].ravel()
            _adam_row(w, a, g, first[some].ravel(), second[some].ravel(), sums, adam)
            for row in range(some.start, some.stop):
                norms[row] = _norm(weights[row], anchor[row])
                _place(weights[row], anchor[row], change[row], ball[0] / norms[row], 0)
        largest[piece] = norms.max()
