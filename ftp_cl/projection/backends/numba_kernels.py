"""The loops that Numba compiles: each works on a table of tensors, given by address, in one call without the GIL.

A table has one line for each piece of consecutive rows of one tensor, in int64: rows, elements per row, then addresses:
of the tensor's numbers (see `radius.NUMBERS`), and of the first element of this piece in the row norms, the change c',
the anchor W0, and the tensors that the loop's docstring names. Elements have the dtype of the argument `zero`, those of
the anchor that of `centre`, those of the change that of `kept`, which is None where none is kept, in one pass; norms
and numbers are float64. Sums over a block of a row are taken in the tensor's dtype, in as many partial sums as a vector
has lanes, and those of blocks in float64: nearly as exact as float64 throughout, and faster. bfloat16 stands here as
uint16. The loops are in one file because Numba's cache on disk notices a change in the file of a loop only.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from ftp_cl.projection import radius
from ftp_cl.projection.backends import numba_lanes
from ftp_cl.projection.backends.numba_lanes import LINE, Lanes, Numbers, narrow, widen
from ftp_cl.projection.radius import SKIPPED, VALUE
from ftp_cl.projection.rows import NORM_EPSILON

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}, "error_model": "numpy"}

_begin, _learn, _clip = (
    numba.njit(forceinline=True, error_model="numpy")(move) for move in (radius.begin, radius.learn, radius.clip)
)

# Numba finds out by itself that this file has changed since it compiled a loop, but not that what it imports has.
_IMPORTED = hashlib.sha256(
    b"".join(Path(str(part.__file__)).read_bytes() for part in (numba_lanes, radius))
).hexdigest()

ROWS, COLUMNS, NUMBERS, NORMS, CHANGE, ANCHOR, OTHERS = range(7)

BLOCK = 1024
"""Elements whose sum is taken in single precision."""

LONG = 128
"""Elements from which on it pays to write a row past the cache."""

ALONE = 64
"""Elements from which on Adam takes a row by itself; shorter ones would leave most lanes empty."""


def _compiled(loop: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk for later runs where a place can be written."""
    loop.__qualname__ += f"-{_IMPORTED[:8]}"  # part of the file's name there
    try:
        return numba.njit(cache=True, **_OPTIONS)(loop)
    except RuntimeError:
        logger.warning("No folder to keep compiled code in (set NUMBA_CACHE_DIR): it is compiled in every run.")
        return numba.njit(**_OPTIONS)(loop)


def _inlined(loop: Callable[..., Any]) -> Any:
    """Part of whatever calls it: a call takes as long as a short row."""
    return numba.njit(forceinline=True, **_OPTIONS)(loop)


@intrinsic
def _pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of the dtype of `like` at an address."""
    pointer = types.CPointer(like)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, like), generate


def _fetched(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    """A line of w and a, and where c and w are to be written; w and a are fetched `ahead` elements further on."""
    zero, centre, kept = kinds
    changes = Lanes(context, builder, kept, LINE // (kept.bitwidth // 8))
    target, *addresses, ahead = arguments[:4]
    loaded = []
    for address, kind in zip(addresses, (zero, centre), strict=True):
        lanes = Lanes(context, builder, kind, changes.count)
        lanes.prefetch(builder.add(address, builder.mul(ahead, ahead.type(lanes.size))))
        loaded.append((lanes, lanes.pointer(address), lanes.load(lanes.pointer(address))))
    return changes, changes.pointer(target), *loaded


@intrinsic
def _subtract_line(typing: Any, to: Any, w: Any, a: Any, ahead: Any, zero: Any, centre: Any, kept: Any) -> Any:
    """Write c = w - a past the cache, a line of it, and fetch w and a `ahead` elements further on; all by address.

    `to`, where c is written, is a multiple of LINE.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        changes, target, (_, _, weights), (_, _, anchor) = _fetched(context, builder, (zero, centre, kept), arguments)
        changes.store_past_cache(weights - anchor, target)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero, centre, kept), generate


@intrinsic
def _shorten_line(
    typing: Any, to: Any, w: Any, a: Any, ahead: Any, zero: Any, centre: Any, kept: Any, ratio: Any
) -> Any:
    """As `_subtract_line`; the weights become anchor + ratio * change."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        changes, target, (lanes, place, weights), (_, _, anchor) = _fetched(
            context, builder, (zero, centre, kept), arguments
        )
        change = lanes.rounded(weights - anchor)
        changes.store_past_cache(change, target)
        lanes.store(change.times_plus(lanes.spread(arguments[7]), anchor), place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero, centre, kept, ratio), generate


@intrinsic(prefer_literal=True)
def _adam(
    typing: Any,
    count: Any,
    lines: Any,
    w: Any,
    a: Any,
    g: Any,
    m: Any,
    v: Any,
    zero: Any,
    centre: Any,
    kept: Any,
    hyper: Any,
) -> Any:
    """AdamW's step of `lines` times `count` weights; all by address. See `adam_rows` for `hyper`.

    Returns the sum of |w - a| and, without a change that is kept, those of |w - a| and g (w - a) before the step. Each
    operation is rounded as in torch's fused AdamW on CPUs that multiply and add at once.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, size = hyper.dtype, count.literal_value
        totals = Lanes(context, builder, number, size)
        lanes = [Lanes(context, builder, kind, size) for kind in (zero, centre, zero, zero, zero)]
        nothing = totals.spread(context.get_constant(number, 0.0))
        spread = [totals.spread(each) for each in cgutils.unpack_tuple(builder, arguments[10])]
        keep, new1, old2, new2, rate, root, eps, sign = spread
        sums = [cgutils.alloca_once_value(builder, nothing.value) for _ in range(3)]

        def add(place: int, amount: Any) -> None:
            builder.store((Numbers(builder, builder.load(sums[place])) + amount).value, sums[place])

        with cgutils.for_range(builder, arguments[1]) as loop:
            pointers = [
                each.pointer(builder.add(address, builder.mul(loop.index, address.type(each.size * size))))
                for each, address in zip(lanes, arguments[2:7], strict=True)
            ]
            w, a, g, m, v = (each.load(pointer) for each, pointer in zip(lanes, pointers, strict=True))
            if isinstance(kept, types.NoneType):
                add(1, (w - a).apply("fabs"))
                add(2, g * (w - a))
            g = sign * g
            m = (g - m).times_plus(new1, m)
            v = g.times_plus(new2 * g, old2 * v)
            decayed = keep.times_plus(w, nothing)  # a mere product would be rounded together with the difference
            w = lanes[0].rounded(decayed - rate * m / (v.apply("sqrt") / root + eps))
            add(0, lanes[0].rounded(w - a).apply("fabs"))
            for new, place in ((w, 0), (m, 3), (v, 4)):
                lanes[place].store(new, pointers[place])
        results = [Numbers(builder, builder.load(each)).total(nothing) for each in sums]
        return context.make_tuple(builder, signature.return_type, results)

    number = hyper.dtype
    return types.UniTuple(number, 3)(count, *[types.int64] * 6, zero, centre, kept, hyper), generate


@_inlined
def _finite(number):
    """As np.isfinite, which subtracts a number from itself: sums taken in any order may make that 0."""
    return abs(number) < np.inf


# ---- one row, or a block of it ---------------------------------------------------------------------------------------


@_inlined
def _dot(g, c):
    """<g, c> of a block."""
    dot = widen(g.dtype.type(0))
    for i in range(len(g)):
        dot += widen(g[i]) * widen(c[i])
    return dot


@_inlined
def _change(w, a):
    """W - a of one weight, rounded as the weights are."""
    return widen(narrow(widen(w) - widen(a), w))


@_inlined
def _distance(w, a):
    """The sum of |w - a| of a block."""
    distance = widen(w.dtype.type(0))
    for i in range(len(w)):
        distance += abs(_change(w[i], a[i]))
    return distance


@_inlined
def _norm(w, a):
    """n_r of w - a, a row."""
    norm = NORM_EPSILON
    for start in range(0, len(w), BLOCK):
        end = min(start + BLOCK, len(w))
        norm += _distance(w[start:end], a[start:end])
    return norm


@_inlined
def _product(g, w, a):
    """<g, w - a> of a block."""
    dot = widen(g.dtype.type(0))
    for i in range(len(g)):
        dot += widen(g[i]) * (widen(w[i]) - widen(a[i]))
    return dot


@_inlined
def _row_vote(g, w, a):
    """<g, w - a> / n_r(w - a) of a row."""
    dot = 0.0
    for start in range(0, len(w), BLOCK):
        end = min(start + BLOCK, len(w))
        dot += _product(g[start:end], w[start:end], a[start:end])
    return dot / _norm(w, a)


@_inlined
def _place_few(w, a, c, ratio):
    """As `_place`, for few elements, or where no change is kept."""
    zero = w.dtype.type(0)
    short = type(widen(zero))(ratio)
    if c is None:
        if ratio < 1:
            for i in range(len(w)):
                w[i] = narrow(widen(a[i]) + short * _change(w[i], a[i]), zero)
    else:
        kept = c.dtype.type(0)
        if ratio < 1:
            for i in range(len(w)):
                change = _change(w[i], a[i])
                c[i] = narrow(change, kept)
                w[i] = narrow(widen(a[i]) + short * change, zero)
        else:
            for i in range(len(w)):
                c[i] = narrow(_change(w[i], a[i]), kept)


@_inlined
def _place(w, a, c, ratio, ahead):
    """Keep c = w - a of a row for the next step, and set w to the boundary of its ball if it lies outside.

    Long rows do not give c a place in the cache: its old values were needed before, its new ones are in the next step.
    Meanwhile the lines of w and a that are `ahead` elements further on come into the cache; 0 for none.
    """
    if c is None or len(c) < LONG:
        _place_few(w, a, c, ratio)
    else:
        size = c.itemsize
        at_once = LINE // size
        start = (-c.ctypes.data % LINE) // size
        end = start + (len(c) - start) // at_once * at_once
        to, weights, anchor = c.ctypes.data, w.ctypes.data, a.ctypes.data
        zero, centre, kept = w.dtype.type(0), a.dtype.type(0), c.dtype.type(0)
        if ratio < 1:
            short = type(widen(zero))(ratio)
            for i in range(start, end, at_once):
                at_w, at_a = weights + i * w.itemsize, anchor + i * a.itemsize
                _shorten_line(to + i * size, at_w, at_a, ahead, zero, centre, kept, short)
        else:
            for i in range(start, end, at_once):
                at_w, at_a = weights + i * w.itemsize, anchor + i * a.itemsize
                _subtract_line(to + i * size, at_w, at_a, ahead, zero, centre, kept)
        if end - start < len(c):
            _place_few(w[:start], a[:start], c[:start], ratio)
            _place_few(w[end:], a[end:], c[end:], ratio)


@_inlined
def _settle(w, a, c, norms, row, radius, ahead):
    """Project a row whose norm is known; returns it, or 0 if it is not finite: the row stays, without a change."""
    norm = norms[row]
    if _finite(norm):
        _place(w, a, c, radius / norm, ahead)
        return norm
    norms[row] = NORM_EPSILON
    if c is not None:
        c[:] = 0
    return 0.0


@_inlined
def _vote(norms, g, c, least):
    """The sum of <g_r, c_r> / n_r over rows that are longer than `least`; not finite if any is not."""
    vote, columns = 0.0, g.shape[1]
    for row in range(len(norms)):
        dot = 0.0
        for start in range(0, columns, BLOCK):
            end = min(start + BLOCK, columns)
            dot += _dot(g[row, start:end], c[row, start:end])
        if norms[row] > least or not _finite(dot):
            vote += dot / norms[row]
    return vote


@_inlined
def _adam_row(w, a, g, m, v, kept, hyper):
    """AdamW's step of a row; returns n_r of the new w - a and, if no change is kept, the vote of the old one."""
    norm, before, dot, size, zero, centre = (
        NORM_EPSILON,
        NORM_EPSILON,
        0.0,
        w.itemsize,
        w.dtype.type(0),
        a.dtype.type(0),
    )
    pw, pa, pg, pm, pv = w.ctypes.data, a.ctypes.data, g.ctypes.data, m.ctypes.data, v.ctypes.data
    for start in range(0, len(w), BLOCK):
        stop = min(start + BLOCK, len(w))
        at, of_anchor, lines = start * size, pa + start * a.itemsize, (stop - start) * size // LINE
        if size == 2:
            sums = _adam(32, lines, pw + at, of_anchor, pg + at, pm + at, pv + at, zero, centre, kept, hyper)
        elif size == 4:
            sums = _adam(16, lines, pw + at, of_anchor, pg + at, pm + at, pv + at, zero, centre, kept, hyper)
        else:
            sums = _adam(8, lines, pw + at, of_anchor, pg + at, pm + at, pv + at, zero, centre, kept, hyper)
        norm, before, dot = norm + sums[0], before + sums[1], dot + sums[2]
        rest = start + lines * (LINE // size)
        if rest < stop:
            at, of_anchor = rest * size, pa + rest * a.itemsize
            sums = _adam(1, stop - rest, pw + at, of_anchor, pg + at, pm + at, pv + at, zero, centre, kept, hyper)
            norm, before, dot = norm + sums[0], before + sums[1], dot + sums[2]
    return norm, dot / before


# ---- tables ----------------------------------------------------------------------------------------------------------


@_inlined
def _rows(address, like, rows, columns):
    """A matrix at an address; None if there is none."""
    if like is None:
        return None
    return carray(_pointer(address, like), (rows, columns))


@_inlined
def _at(matrix, row):
    """One of its rows."""
    if matrix is None:
        return None
    return matrix[row]


@_compiled
def start(lines, first_radius, learning, votes, k, mu):
    """Count the step in the numbers at each address in `lines`, and move the radius along the vote where `learning`."""
    for i in range(len(lines)):
        line = carray(_pointer(lines[i], 0.0), (SKIPPED + 1,))
        _begin(line, first_radius)
        if learning[i]:
            _learn(line, votes[i], k[i], mu)


@_compiled
def finish(lines, owners, largest, bad, learning, votes, k, mu, skipped):
    """Bound radii by the largest row of each piece, and count skips; `learning`: move them along votes afterwards.

    `owners` names the tensor of each piece; skipped[tensor] says whether something of it was not finite; written.
    """
    longest = np.zeros(len(lines))
    for piece in range(len(owners)):
        owner = owners[piece]
        longest[owner] = max(longest[owner], largest[piece])
        skipped[owner] |= bad[piece]
    for i in range(len(lines)):
        line = carray(_pointer(lines[i], 0.0), (SKIPPED + 1,))
        _clip(line, longest[i])
        if learning:
            _learn(line, votes[i], k[i], mu)
        skipped[i] |= not _finite(votes[i])
        line[SKIPPED] += skipped[i]


@_compiled
def vote_rows(table, zero, centre, kept, exact, votes):
    """votes[piece] = sum over rows of <g_r, c'_r> / n_r; `exact`: over those longer than the radius. Another: g."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = _rows(table[piece, CHANGE], kept, rows, columns)
        gradient = _rows(table[piece, OTHERS], zero, rows, columns)
        line = carray(_pointer(table[piece, NUMBERS], 0.0), (SKIPPED + 1,))
        votes[piece] = _vote(norms, gradient, change, line[VALUE] if exact else 0.0)


@_compiled
def vote_rows_of_weights(table, zero, centre, votes):
    """votes[piece] = sum over rows of <g_r, W_r - W0_r> / n_r(W - W0). Others: g, W."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        anchor = _rows(table[piece, ANCHOR], centre, rows, columns)
        gradient = _rows(table[piece, OTHERS], zero, rows, columns)
        weights = _rows(table[piece, OTHERS + 1], zero, rows, columns)
        vote = 0.0
        for row in range(rows):
            vote += _row_vote(gradient[row], weights[row], anchor[row])
        votes[piece] = vote


@_compiled
def project_rows(table, zero, centre, kept, largest, bad):
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0. Another: W.

    largest[piece] is the largest norm n_r of finite ones, 0 for none, and bad[piece] says whether there are others.
    """
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = _rows(table[piece, CHANGE], kept, rows, columns)
        anchor = _rows(table[piece, ANCHOR], centre, rows, columns)
        weights = _rows(table[piece, OTHERS], zero, rows, columns)
        radius = carray(_pointer(table[piece, NUMBERS], 0.0), (SKIPPED + 1,))[VALUE]
        longest = 0.0
        for row in range(rows):
            w, a = weights[row], anchor[row]
            norms[row] = _norm(w, a)
            norm = _settle(w, a, _at(change, row), norms, row, radius, columns)  # the next row is fetched meanwhile
            longest = max(longest, norm)
            bad[piece] |= norm == 0
        largest[piece] = longest


@_compiled
def adam_rows(table, zero, centre, kept, mu, exact, hyper, steps, voted, votes, largest, bad):
    """All of a step of AdamW followed by FTP, tensor by tensor: a gradient is in the cache still when Adam takes it.

    Others: W, g, exp_avg, exp_avg_sq.

    Args:
        table: see above.
        zero: of the weights' dtype.
        centre: of the anchor's dtype.
        kept: of the change's dtype; None: votes are of the weights before the step, and count in the next one.
        mu: step size of the radii.
        exact: as `vote_rows` has it.
        hyper: of each piece, FTP's k, -1 if the loss is to grow and else 1, lr, weight decay, beta1, beta2, eps.
        steps: of each piece, Adam's, with this one.
        voted: whether votes[piece] is the whole tensor's, of which this is not all, and the radius has moved along it.
        votes: of each piece; written unless `voted`.
        largest: as in `project_rows`.
        bad: as in `project_rows`.
    """
    number = type(widen(zero))
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = _rows(table[piece, CHANGE], kept, rows, columns)
        anchor = _rows(table[piece, ANCHOR], centre, rows, columns)
        weights = _rows(table[piece, OTHERS], zero, rows, columns)
        gradient = _rows(table[piece, OTHERS + 1], zero, rows, columns)
        first = _rows(table[piece, OTHERS + 2], zero, rows, columns)
        second = _rows(table[piece, OTHERS + 3], zero, rows, columns)
        line, h = carray(_pointer(table[piece, NUMBERS], 0.0), (SKIPPED + 1,)), hyper[piece]
        k, sign, lr, decay, beta1, beta2, eps = h[0], h[1], h[2], h[3], h[4], h[5], h[6]
        if kept is not None and not voted[piece]:
            votes[piece] = sign * _vote(norms, gradient, change, line[VALUE] if exact else 0.0)
            _learn(line, votes[piece], k, mu)
        rate, root = lr / (1 - beta1 ** steps[piece]), np.sqrt(1 - beta2 ** steps[piece])
        decay_and_moments = number(1 - lr * decay), number(1 - beta1), number(beta2), number(1 - beta2)
        adam = (*decay_and_moments, number(rate), number(root), number(eps), number(sign))
        radius, longest, total = line[VALUE], 0.0, 0.0
        if columns >= ALONE:
            for row in range(rows):
                w, a = weights[row], anchor[row]
                norms[row], vote = _adam_row(w, a, gradient[row], first[row], second[row], kept, adam)
                norm = _settle(w, a, _at(change, row), norms, row, radius, columns)
                longest, total = max(longest, norm), total + vote
                bad[piece] |= norm == 0
        else:
            for top in range(0, rows, BLOCK // columns):
                some = slice(top, min(top + BLOCK // columns, rows))
                if kept is None:
                    for row in range(some.start, some.stop):
                        total += _row_vote(gradient[row], weights[row], anchor[row])
                w, a, g = weights[some].ravel(), anchor[some].ravel(), gradient[some].ravel()
                _adam_row(w, a, g, first[some].ravel(), second[some].ravel(), zero, adam)
                for row in range(some.start, some.stop):
                    norms[row] = _norm(weights[row], anchor[row])
                    norm = _settle(weights[row], anchor[row], _at(change, row), norms, row, radius, 0)
                    longest = max(longest, norm)
                    bad[piece] |= norm == 0
        largest[piece] = longest
        if kept is None:
            votes[piece] = sign * total


@_compiled
def add_to_each(addresses, amount, sums):
    """Add a float32 to that at each address; `sums` are the results."""
    for i in range(len(addresses)):
        number = carray(_pointer(addresses[i], amount), (1,))
        number[0] += amount
        sums[i] = number[0]
