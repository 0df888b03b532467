"""Kernels for GPUs, in Triton: all tensors of a step in a few launches, and nothing that the host waits for.

Rows are grouped by width. A program takes `ROWS` whole rows of up to `COLS` elements each, which it reads once (WHOLE),
or a piece of `COLS` elements of one longer row; the pieces of such a row are measured in one launch and placed in the
next one. `owners` names the tensor of each program, `firsts` its first row or piece there.

The table has one line of `FIELDS` int64 numbers for each tensor: addresses of weights, gradient, Adam's two moments and
its number of steps (float32), anchor, change, row norms and numbers (see `radius.NUMBERS`), then its columns and rows.
W, A and C are the types of weights, anchor and change (None: in one pass, none is kept), SUMS that of sums. `hyper`
has one line of `HYPER` float64 numbers for each tensor: mu, k, sign of the vote, then for Adam lr, weight decay, beta1,
beta2, eps. `results` has three lines of float64, with a number for each program: its part of the vote, the largest
finite norm (0 for none), and 1 if a norm is not finite. `measures`, of pieces: <g, w - a> and |w - a| before the step,
in one pass, and |w - a| after it.
"""

import triton
import triton.language as tl

FIELDS, HYPER = 11, 8

_FIELDS, _HYPER = tl.constexpr(FIELDS), tl.constexpr(HYPER)
_NORM_EPSILON, _SMALLEST_RADIUS = tl.constexpr(1e-8), tl.constexpr(1e-8)  # those of ftp_cl.projection
_LOG_09, _LOG_0999 = tl.constexpr(-0.10536051565782628), tl.constexpr(-0.0010005003335835335)


@triton.jit
def _zero():
    return tl.full((), 0, tl.float64)


@triton.jit
def _finite(x):
    return x - x == 0


@triton.jit
def _matrix(line, field: tl.constexpr, kind: tl.constexpr):
    """The first element of a tensor of the table."""
    return tl.load(line + field).to(tl.pointer_type(kind))


@triton.jit
def _tile(line, first, left_out, ROWS: tl.constexpr, COLS: tl.constexpr, WHOLE: tl.constexpr):
    """Rows of this program, which of them exist, offsets of their elements and which of those exist."""
    columns, count = tl.load(line + 9), tl.load(line + 10)
    if left_out is not None:  # the optimizer leaves this step out: there are no rows
        count = tl.where(tl.load(left_out) > 0, 0, count)
    if WHOLE:
        rows = first + tl.arange(0, ROWS)
        cols = tl.arange(0, COLS)
    else:
        pieces = tl.cdiv(columns, COLS)
        rows = first // pieces + tl.arange(0, ROWS)
        cols = first % pieces * COLS + tl.arange(0, COLS)
    inside = rows < count
    at = rows.to(tl.int64)[:, None] * columns + cols[None, :]
    return rows, inside, at, inside[:, None] & (cols < columns)[None, :]


@triton.jit
def _vote_of_weights(w, a, g):
    """Of each row, <g, w - a> and |w - a|."""
    return tl.sum(g * (w - a), axis=1), tl.sum(tl.abs(w - a), axis=1)


@triton.jit
def _adam(line, h, at, mask, w, g, W: tl.constexpr, SUMS: tl.constexpr):
    """AdamW's new weights; its moments are kept."""
    lr, decay, beta1, beta2, eps = tl.load(h + 3), tl.load(h + 4), tl.load(h + 5), tl.load(h + 6), tl.load(h + 7)
    step = tl.load(tl.load(line + 4).to(tl.pointer_type(tl.float32))).to(tl.float64) + 1
    rate = lr / (1 - tl.exp(step * tl.log(beta1)))
    root = tl.sqrt(1 - tl.exp(step * tl.log(beta2)))
    first, second = _matrix(line, 2, W), _matrix(line, 3, W)
    g = g * tl.load(h + 2).to(SUMS)
    m = tl.load(first + at, mask=mask, other=0.0).to(SUMS)
    v = tl.load(second + at, mask=mask, other=0.0).to(SUMS)
    m += (1 - beta1).to(SUMS) * (g - m)
    v = beta2.to(SUMS) * v + (1 - beta2).to(SUMS) * g * g
    tl.store(first + at, m.to(W), mask=mask)
    tl.store(second + at, v.to(W), mask=mask)
    w = w * (1 - lr * decay).to(SUMS) - rate.to(SUMS) * m / (tl.sqrt(v) / root.to(SUMS) + eps.to(SUMS))
    return w.to(W).to(SUMS)


@triton.jit
def _radius(line, h, ONE_PASS: tl.constexpr):
    """The radius of this step; in one pass, `start` has not run."""
    numbers = tl.load(line + 8).to(tl.pointer_type(tl.float64))
    radius = tl.load(numbers)
    if ONE_PASS:
        radius = tl.where(tl.load(numbers + 3) == 0, tl.load(h), radius)
    return radius


@triton.jit
def _place(line, at, mask, inside, rows, w, a, length, radius, W: tl.constexpr, C: tl.constexpr, SUMS: tl.constexpr):
    """Project rows and keep their change; `length` is their norm. Rows whose norm is not finite are left alone.

    Returns the norms, 0 where they are not finite.
    """
    finite, c = _finite(length), (w - a).to(W).to(SUMS)
    if C is not None:
        tl.store(_matrix(line, 6, C) + at, tl.where(finite[:, None], c, 0.0).to(C), mask=mask)
    ratio = tl.minimum(radius.to(SUMS) / length, 1.0)
    projected = tl.where(finite[:, None], a + c * ratio[:, None], w)
    tl.store(_matrix(line, 0, W) + at, projected.to(W), mask=mask)
    norms = tl.load(line + 7).to(tl.pointer_type(tl.float64))
    tl.store(norms + rows, tl.where(finite, length, _NORM_EPSILON).to(tl.float64), mask=inside)
    return tl.where(finite, length, 0.0)


@triton.jit
def vote(
    table, owners, firsts, hyper, measures, results, programs, left_out, W: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    WHOLE: tl.constexpr, ONE_PASS: tl.constexpr, EXACT: tl.constexpr
):  # fmt: skip
    """Votes, before the optimizer's step: the sum over rows of <g_r, c'_r> / n_r(c')."""
    i = tl.program_id(0)
    line = table + tl.load(owners + i).to(tl.int64) * _FIELDS
    rows, inside, at, mask = _tile(line, tl.load(firsts + i), None, ROWS, COLS, WHOLE)
    g = tl.load(_matrix(line, 1, W) + at, mask=mask, other=0.0).to(SUMS)
    if ONE_PASS:
        w = tl.load(_matrix(line, 0, W) + at, mask=mask, other=0.0).to(SUMS)
        a = tl.load(_matrix(line, 5, A) + at, mask=mask, other=0.0).to(SUMS)
        dots, length = _vote_of_weights(w, a, g)
        if WHOLE:
            dots = dots / (length + _NORM_EPSILON)
        else:
            results = measures
            tl.store(measures + programs + i, tl.sum(length.to(tl.float64), axis=0))
    else:
        c = tl.load(_matrix(line, 6, C) + at, mask=mask, other=0.0).to(SUMS)
        norms = tl.load(tl.load(line + 7).to(tl.pointer_type(tl.float64)) + rows, mask=inside, other=1.0)
        dots = tl.sum(g * c, axis=1).to(tl.float64) / norms
        if EXACT:
            radius = tl.load(tl.load(line + 8).to(tl.pointer_type(tl.float64)))
            dots = tl.where((norms > radius) | (_finite(dots) == 0), dots, 0.0)
    tl.store(results + i, tl.sum(tl.where(inside, dots, 0.0).to(tl.float64), axis=0))


@triton.jit
def step(
    table, owners, firsts, hyper, measures, results, programs, left_out, W: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ONE_PASS: tl.constexpr, ADAM: tl.constexpr
):  # fmt: skip
    """W_r = W0_r + min(1, gamma / n_r(c)) c_r with c = W~ - W0, in place, of whole rows, which are read once.

    ADAM: W~ is AdamW's step, taken here; in one pass, the vote is taken before it.
    """
    i = tl.program_id(0)
    owner = tl.load(owners + i).to(tl.int64)
    line, h = table + owner * _FIELDS, hyper + owner * _HYPER
    rows, inside, at, mask = _tile(line, tl.load(firsts + i), left_out, ROWS, COLS, True)
    w = tl.load(_matrix(line, 0, W) + at, mask=mask, other=0.0).to(SUMS)
    a = tl.load(_matrix(line, 5, A) + at, mask=mask, other=0.0).to(SUMS)
    if ADAM:
        g = tl.load(_matrix(line, 1, W) + at, mask=mask, other=0.0).to(SUMS)
        if ONE_PASS:
            dots, before = _vote_of_weights(w, a, g)
            votes = tl.where(inside, dots / (before + _NORM_EPSILON), 0.0)
            tl.store(results + i, tl.sum(votes.to(tl.float64), axis=0))
        # A rule that bounds each row of the optimizer's own step would do so here.
        w = tl.where(mask, _adam(line, h, at, mask, w, g, W, SUMS), 0.0)
    length = tl.sum(tl.abs((w - a).to(W).to(SUMS)), axis=1) + _NORM_EPSILON
    radius = _radius(line, h, ONE_PASS)
    length = _place(line, at, mask, inside, rows, w, a, length, radius, W, C, SUMS)
    tl.store(results + programs + i, tl.max(tl.where(inside, length, 0.0), axis=0).to(tl.float64))
    tl.store(results + 2 * programs + i, tl.max((inside & (length == 0)).to(tl.int32), axis=0).to(tl.float64))


@triton.jit
def measure(
    table, owners, firsts, hyper, measures, results, programs, left_out, W: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ONE_PASS: tl.constexpr, ADAM: tl.constexpr
):  # fmt: skip
    """The sum of |w - a| of pieces of long rows, for `place`; ADAM: after AdamW's step, which is taken here."""
    i = tl.program_id(0)
    owner = tl.load(owners + i).to(tl.int64)
    line, h = table + owner * _FIELDS, hyper + owner * _HYPER
    _, _, at, mask = _tile(line, tl.load(firsts + i), left_out, ROWS, COLS, False)
    w = tl.load(_matrix(line, 0, W) + at, mask=mask, other=0.0).to(SUMS)
    a = tl.load(_matrix(line, 5, A) + at, mask=mask, other=0.0).to(SUMS)
    if ADAM:
        g = tl.load(_matrix(line, 1, W) + at, mask=mask, other=0.0).to(SUMS)
        if ONE_PASS:
            dots, before = _vote_of_weights(w, a, g)
            tl.store(measures + i, tl.sum(dots.to(tl.float64), axis=0))
            tl.store(measures + programs + i, tl.sum(before.to(tl.float64), axis=0))
        w = tl.where(mask, _adam(line, h, at, mask, w, g, W, SUMS), 0.0)
        tl.store(_matrix(line, 0, W) + at, w.to(W), mask=mask)
    length = tl.sum(tl.abs((w - a).to(W).to(SUMS)), axis=1)
    tl.store(measures + 2 * programs + i, tl.sum(length.to(tl.float64), axis=0))


@triton.jit
def place(
    table, owners, firsts, hyper, measures, results, programs, left_out, W: tl.constexpr, A: tl.constexpr,
    C: tl.constexpr, SUMS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ONE_PASS: tl.constexpr, AT_ONCE: tl.constexpr
):  # fmt: skip
    """As `step`, of pieces whose rows `measure`, and in one pass the vote, have measured."""
    i, first = tl.program_id(0), tl.load(firsts + tl.program_id(0))
    owner = tl.load(owners + i).to(tl.int64)
    line, h = table + owner * _FIELDS, hyper + owner * _HYPER
    rows, inside, at, mask = _tile(line, first, left_out, ROWS, COLS, False)
    pieces = tl.cdiv(tl.load(line + 9), COLS)
    start = measures + i - first % pieces
    dot, length, before = _zero(), _zero(), _zero()
    for piece in range(0, pieces, AT_ONCE):
        some = piece + tl.arange(0, AT_ONCE)
        length += tl.sum(tl.load(start + 2 * programs + some, mask=some < pieces, other=0.0), axis=0)
        if ONE_PASS:
            dot += tl.sum(tl.load(start + some, mask=some < pieces, other=0.0), axis=0)
            before += tl.sum(tl.load(start + programs + some, mask=some < pieces, other=0.0), axis=0)
    w = tl.load(_matrix(line, 0, W) + at, mask=mask, other=0.0).to(SUMS)
    a = tl.load(_matrix(line, 5, A) + at, mask=mask, other=0.0).to(SUMS)
    lengths = (tl.zeros((ROWS,), dtype=tl.float64) + length + _NORM_EPSILON).to(SUMS)
    lengths = _place(line, at, mask, inside, rows, w, a, lengths, _radius(line, h, ONE_PASS), W, C, SUMS)
    if ONE_PASS:  # once for the row
        tl.store(results + i, tl.where(first % pieces == 0, dot / (before + _NORM_EPSILON), 0.0))
    tl.store(results + programs + i, tl.max(tl.where(inside, lengths, 0.0), axis=0).to(tl.float64))
    tl.store(results + 2 * programs + i, tl.max((inside & (lengths == 0)).to(tl.int32), axis=0).to(tl.float64))


@triton.jit
def _learn(numbers, steps, radius, vote, h, write):
    """See `radius.learn`; returns the new radius."""
    d = tl.where((steps > 1) & _finite(vote), vote, 0.0)
    d = tl.where(d > 0, tl.load(h + 1) * d, d)
    first = 0.9 * tl.load(numbers + 1) + 0.1 * d
    second = 0.999 * tl.load(numbers + 2) + 0.001 * d * d
    mean = first / (1 - tl.exp(steps * _LOG_09))
    deviation = tl.sqrt(second / (1 - tl.exp(steps * _LOG_0999)))
    tl.store(numbers + 1, first, mask=write)
    tl.store(numbers + 2, second, mask=write)
    return tl.maximum(radius - tl.load(h) * mean / (deviation + 1e-8), _SMALLEST_RADIUS)


@triton.jit
def _vote_of_tensor(spans, results, owner, h, scale, AT_ONCE: tl.constexpr):
    """The sum of what the programs of a tensor have found, with its sign and without a GradScaler's factor."""
    totals = tl.zeros((AT_ONCE,), dtype=tl.float64)
    end = tl.load(spans + 2 * owner + 1)
    for i in range(tl.load(spans + 2 * owner), end, AT_ONCE):
        at = i + tl.arange(0, AT_ONCE)
        totals += tl.load(results + at, mask=at < end, other=0.0)
    total = tl.sum(totals, axis=0) * tl.load(h + 2)
    if scale is not None:
        total = total / tl.load(scale).to(tl.float64)
    return total


@triton.jit
def start(table, spans, hyper, results, programs, left_out, scale, skipped, AT_ONCE: tl.constexpr):
    """Count the step and move the radius along the vote, one program for each tensor; not in one pass."""
    owner = tl.program_id(0).to(tl.int64)
    numbers = tl.load(table + owner * _FIELDS + 8).to(tl.pointer_type(tl.float64))
    h = hyper + owner * _HYPER
    write = True if left_out is None else tl.load(left_out) <= 0
    steps = tl.load(numbers + 3) + 1
    radius = tl.where(steps == 1, _SMALLEST_RADIUS, tl.load(numbers))
    vote = _vote_of_tensor(spans, results, owner, h, scale, AT_ONCE)
    tl.store(numbers, _learn(numbers, steps, radius, vote, h, write), mask=write)
    tl.store(numbers + 3, steps, mask=write)


@triton.jit
def finish(
    table, spans, hyper, results, programs, left_out, scale, skipped,
    ONE_PASS: tl.constexpr, ADAM: tl.constexpr, AT_ONCE: tl.constexpr
):  # fmt: skip
    """Bound the radius by the largest row, count skips; in one pass, count the step and move the radius, too."""
    owner = tl.program_id(0).to(tl.int64)
    line = table + owner * _FIELDS
    numbers, h = tl.load(line + 8).to(tl.pointer_type(tl.float64)), hyper + owner * _HYPER
    write = True if left_out is None else tl.load(left_out) <= 0
    norms, bad = tl.zeros((AT_ONCE,), dtype=tl.float64), tl.zeros((AT_ONCE,), dtype=tl.float64)
    end = tl.load(spans + 2 * owner + 1)
    for i in range(tl.load(spans + 2 * owner), end, AT_ONCE):
        at = i + tl.arange(0, AT_ONCE)
        mask = at < end
        norms = tl.maximum(norms, tl.load(results + programs + at, mask=mask, other=0.0))
        bad = tl.maximum(bad, tl.load(results + 2 * programs + at, mask=mask, other=0.0))
    largest = tl.max(norms, axis=0)
    vote = _vote_of_tensor(spans, results, owner, h, scale, AT_ONCE)
    radius, steps = tl.load(numbers), tl.load(numbers + 3)
    if ONE_PASS:
        steps += 1
        radius = tl.where(steps == 1, tl.load(h), radius)
    radius = tl.where((steps > 1) & (largest > 0) & (largest < radius), largest, radius)
    if ONE_PASS:
        radius = _learn(numbers, steps, radius, vote, h, write)
        tl.store(numbers + 3, steps, mask=write)
    tl.store(numbers, radius, mask=write)
    one = tl.where(_finite(vote) & (tl.max(bad, axis=0) == 0), 0.0, 1.0)
    tl.store(numbers + 4, tl.load(numbers + 4) + one, mask=write)
    tl.store(skipped + owner, tl.where(write, one, 0.0) != 0)
    if ADAM:
        count = tl.load(line + 4).to(tl.pointer_type(tl.float32))
        tl.store(count, tl.load(count) + 1)
