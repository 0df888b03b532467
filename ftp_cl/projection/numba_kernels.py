"""The loops that Numba compiles: each works on a table of tensors, given by address, in one call without the GIL.

A table has one line for each piece of consecutive rows of one tensor, in int64: rows, elements per row, then addresses
of the first element of this piece in the tensors that the loop's docstring names. Elements have the dtype of the
argument `zero`, those of c and c' that of `kept`, row norms are float64. Sums over a block of a row are taken in the
tensor's dtype, in as many partial sums as a vector has lanes, and those of blocks in float64: nearly as exact as
float64 throughout, and faster. bfloat16, which numpy does not have, stands here as uint16 with the same bits; it is
computed with in float32.
"""

import logging
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from ftp_cl.projection.rows import NORM_EPSILON

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}, "error_model": "numpy"}

ROWS, COLUMNS, NORMS = 0, 1, 2

BLOCK = 1024
"""Elements whose sum is taken in single precision."""

LONG = 128
"""Elements from which on it pays to write a row past the cache."""

LINE = 64
"""Bytes of a line of the cache, and of what is written past it at once."""


def _compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the machine code on disk for later runs where a place can be written."""
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


# ---- bfloat16 --------------------------------------------------------------------------------------------------------


def _widened(builder: Any, value: Any) -> Any:
    """Bfloat16 as float32, one number or a vector of LLVM."""
    bits = builder.shl(builder.zext(value, _shaped(ir.IntType(32), value)), _equal(value, 32, 16))
    return builder.bitcast(bits, _shaped(ir.FloatType(), value))


def _narrowed(builder: Any, value: Any) -> Any:
    """Float32 as the nearest bfloat16, ties to even; one number or a vector of LLVM."""
    bits = builder.bitcast(value, _shaped(ir.IntType(32), value))
    odd = builder.and_(builder.lshr(bits, _equal(value, 32, 16)), _equal(value, 32, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, _equal(value, 32, 0x7FFF))), _equal(value, 32, 16))
    short = builder.trunc(rounded, _shaped(ir.IntType(16), value))
    return builder.select(builder.fcmp_unordered("uno", value, value), _equal(value, 16, 0x7FC0), short)


def _shaped(kind: Any, like: Any) -> Any:
    """A vector type of as many as `like` has, or the type itself."""
    return ir.VectorType(kind, like.type.count) if isinstance(like.type, ir.VectorType) else kind


def _equal(like: Any, bits: int, number: int) -> Any:
    """The same integer in each place of `like`."""
    kind = _shaped(ir.IntType(bits), like)
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


@intrinsic
def _wide(typing_context: Any, number: Any) -> Any:
    """A number as it is computed with."""
    half = number == types.uint16

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _widened(builder, arguments[0]) if half else arguments[0]

    return (types.float32 if half else number)(number), generate


@intrinsic
def _kept(typing_context: Any, number: Any, like: Any) -> Any:
    """A number as an array keeps it whose elements are of the type of `like`."""
    half = like == types.uint16

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _narrowed(builder, arguments[0]) if half else arguments[0]

    return (types.uint16 if half else number)(number, like), generate


# ---- what the compiler does not do by itself -------------------------------------------------------------------------


class _Numbers:
    """Arithmetic on numbers side by side in a vector of LLVM, for a loop's body that is generated by hand.

    Numba's loops become vector instructions only where few arrays are involved, and it has no stores past the cache.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _combined(self, operation: str, other: "_Numbers") -> "_Numbers":
        value = getattr(self.builder, operation)(self.value, other.value, flags=["contract"])
        return _Numbers(self.builder, value)

    __add__ = partialmethod(_combined, "fadd")
    __sub__ = partialmethod(_combined, "fsub")
    __mul__ = partialmethod(_combined, "fmul")
    __truediv__ = partialmethod(_combined, "fdiv")

    def apply(self, function: str) -> "_Numbers":
        """Sqrt or fabs of each."""
        kind = self.value.type
        name = f"llvm.{function}.v{kind.count}{kind.element.intrinsic_name}"
        module = self.builder.module
        declared = module.globals.get(name) or ir.Function(module, ir.FunctionType(kind, [kind]), name)
        return _Numbers(self.builder, self.builder.call(declared, [self.value]))


class _Lanes:
    """Loads and stores `count` numbers of one type at once; bfloat16 is widened and rounded on the way."""

    def __init__(self, context: Any, builder: Any, number: Any, count: int) -> None:
        self.builder, self.count, self.half = builder, count, number == types.uint16
        self.kind = ir.VectorType(context.get_value_type(number), count)
        self.size = context.get_abi_sizeof(self.kind.element)

    def pointer(self, address: Any) -> Any:
        """Where that many numbers are."""
        return self.builder.inttoptr(address, self.kind.as_pointer())

    def load(self, pointer: Any) -> _Numbers:
        """They need not be aligned."""
        value = self.builder.load(pointer, align=self.size)
        return _Numbers(self.builder, _widened(self.builder, value) if self.half else value)

    def store(self, numbers: _Numbers, pointer: Any) -> None:
        """They need not be aligned."""
        self.builder.store(self._kept(numbers), pointer, align=self.size)

    def store_past_cache(self, numbers: _Numbers, pointer: Any) -> None:
        """The line that is overwritten is not read first; it begins here."""
        store = self.builder.store(self._kept(numbers), pointer, align=LINE)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.IntType(32)(1)]))

    def rounded(self, numbers: _Numbers) -> _Numbers:
        """What a load would give after a store."""
        return _Numbers(self.builder, _widened(self.builder, self._kept(numbers))) if self.half else numbers

    def _kept(self, numbers: _Numbers) -> Any:
        return _narrowed(self.builder, numbers.value) if self.half else numbers.value

    def prefetch(self, address: Any) -> None:
        """Let as many numbers from an address on come into the cache; the address need not exist."""
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        to_read, keep, data = word(0), word(3), word(1)
        for line in range(0, self.count * self.size, LINE):
            place = self.builder.inttoptr(self.builder.add(address, ir.IntType(64)(line)), byte)
            self.builder.call(function, [place, to_read, keep, data])

    def spread(self, number: Any) -> _Numbers:
        """The same number in each place; it is not rounded."""
        nothing = ir.Constant(ir.VectorType(number.type, self.count), ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.IntType(32)(0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), self.count), [0] * self.count)
        return _Numbers(self.builder, self.builder.shuffle_vector(one, nothing, first))


@intrinsic
def _subtract_line(typing_context: Any, to: Any, w: Any, a: Any, ahead: Any, zero: Any, kept: Any) -> Any:
    """Write c = w - a past the cache, a line of it, and fetch w and a `ahead` bytes further on; all by address.

    `to`, where c is written, is a multiple of LINE.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        changes = _Lanes(context, builder, kept, LINE // (kept.bitwidth // 8))
        lanes = _Lanes(context, builder, zero, changes.count)
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
        changes = _Lanes(context, builder, kept, LINE // (kept.bitwidth // 8))
        lanes = _Lanes(context, builder, zero, changes.count)
        target, weights, anchor = arguments[:3]
        for address in (weights, anchor):
            lanes.prefetch(builder.add(address, arguments[3]))
        centre = lanes.load(lanes.pointer(anchor))
        change = lanes.rounded(lanes.load(lanes.pointer(weights)) - centre)
        changes.store_past_cache(change, changes.pointer(target))
        lanes.store(centre + lanes.spread(arguments[6]) * change, lanes.pointer(weights))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero, kept, ratio), generate


@intrinsic(prefer_literal=True)
def _adam(
    typing_context: Any, count: Any, norm: Any, w: Any, a: Any, g: Any, m: Any, v: Any, zero: Any, hyper: Any
) -> Any:
    """AdamW's step of `count` weights, with |w - a| added to `norm`; all by address. See `adam_rows` for `hyper`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums = _Lanes(context, builder, hyper.dtype, count.literal_value)
        lanes = _Lanes(context, builder, zero, count.literal_value)
        norms, pointers = sums.pointer(arguments[1]), [lanes.pointer(address) for address in arguments[2:7]]
        w, a, g, m, v = (lanes.load(pointer) for pointer in pointers)
        keep, new1, old2, new2, rate, root, eps = (sums.spread(x) for x in cgutils.unpack_tuple(builder, arguments[8]))
        m = m + new1 * (g - m)
        v = old2 * v + new2 * g * g
        w = lanes.rounded(keep * w - rate * m / (v.apply("sqrt") * root + eps))
        sums.store(sums.load(norms) + lanes.rounded(w - a).apply("fabs"), norms)
        for new, pointer in zip((w, m, v), (pointers[0], *pointers[3:]), strict=True):
            lanes.store(new, pointer)
        return context.get_dummy_value()

    return types.void(count, *[types.int64] * 6, zero, hyper), generate


# ---- one row, or a block of it ---------------------------------------------------------------------------------------


@_inlined
def _dot(g, c):  # type: ignore[no-untyped-def]
    """<g, c> of a block."""
    dot = _wide(g.dtype.type(0))
    for i in range(len(g)):
        dot += _wide(g[i]) * _wide(c[i])
    return dot


@_inlined
def _change(w, a):  # type: ignore[no-untyped-def]
    """W - a of one weight, rounded as the weights are."""
    return _wide(_kept(_wide(w) - _wide(a), w))


@_inlined
def _distance(w, a):  # type: ignore[no-untyped-def]
    """The sum of |w - a| of a block."""
    distance = _wide(w.dtype.type(0))
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
        short = type(_wide(zero))(ratio)
        for i in range(len(w)):
            centre = _wide(a[i])
            change = _change(w[i], a[i])
            c[i] = _kept(change, kept)
            w[i] = _kept(centre + short * change, zero)
    else:
        for i in range(len(w)):
            c[i] = _kept(_change(w[i], a[i]), kept)


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
        short = type(_wide(zero))(ratio)
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
def project_rows(table, zero, kept, radii, largest):  # type: ignore[no-untyped-def]
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0; largest[piece] = max n_r. Addresses: norms, c, W0, W."""
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], kept), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        ahead = columns * weights.itemsize  # to the next row, fetched while one is written; beside Adam it costs more
        for row in range(rows):
            norms[row] = _norm(weights[row], anchor[row])
            _place(weights[row], anchor[row], change[row], radii[piece] / norms[row], ahead)
        largest[piece] = norms.max()


@_compiled
def adam_rows(table, zero, kept, radii, hyper, largest):  # type: ignore[no-untyped-def]
    """AdamW's update of each row, followed by its projection as in `project_rows`.

    Addresses: norms, c, W0, W, g, exp_avg, exp_avg_sq. A line of `hyper`: 1 - lr * weight decay, 1 - beta1, beta2,
    1 - beta2, lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), eps.
    """
    number = type(_wide(zero))
    for piece in range(table.shape[0]):
        rows, columns = table[piece, ROWS], table[piece, COLUMNS]
        norms = carray(_pointer(table[piece, NORMS], 0.0), (rows,))
        change = carray(_pointer(table[piece, 3], kept), (rows, columns))
        anchor = carray(_pointer(table[piece, 4], zero), (rows, columns))
        weights = carray(_pointer(table[piece, 5], zero), (rows, columns))
        gradient = carray(_pointer(table[piece, 6], zero), (rows, columns))
        first = carray(_pointer(table[piece, 7], zero), (rows, columns))
        second = carray(_pointer(table[piece, 8], zero), (rows, columns))
        sums = np.full(LINE // weights.itemsize, _wide(zero))
        h = hyper[piece]
        numbers = number(h[0]), number(h[1]), number(h[2]), number(h[3]), number(h[4]), number(h[5]), number(h[6])
        if columns >= LONG:
            for row in range(rows):
                w, a = weights[row], anchor[row]
                norms[row] = _adam_row(w, a, gradient[row], first[row], second[row], sums, numbers)
                _place(w, a, change[row], radii[piece] / norms[row], 0)
            largest[piece] = norms.max()
            continue
        for top in range(0, rows, BLOCK // columns):  # row by row, short ones would leave most lanes empty
            some = slice(top, min(top + BLOCK // columns, rows))
            w, a, g = weights[some].ravel(), anchor[some].ravel(), gradient[some].ravel()
            _adam_row(w, a, g, first[some].ravel(), second[some].ravel(), sums, numbers)
            for row in range(some.start, some.stop):
                norms[row] = _norm(weights[row], anchor[row])
                _place(weights[row], anchor[row], change[row], radii[piece] / norms[row], 0)
        largest[piece] = norms.max()
