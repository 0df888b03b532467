"""Row loops for GPUs, in Triton: one program for each row of all tensors of a step.

A kernel's table has one line of `FIELDS` int64 numbers for each tensor: the addresses of its weights or gradient,
anchor, change and norms, its elements per row, and the bits of its radius as float64.
"""

import triton
import triton.language as tl

FIELDS = 6

_FIELDS = tl.constexpr(FIELDS)
_NORM_EPSILON = tl.constexpr(1e-8)  # that of ftp_cl.projection.rows


@triton.jit
def vote_rows(
    table,
    owners,
    numbers,
    votes,
    kind: tl.constexpr,
    change_kind: tl.constexpr,
    sums: tl.constexpr,
    block: tl.constexpr,
):
    """votes[i] = <g_r, c'_r> / n_r(c') of the row i, which is row r = numbers[i] of the tensor owners[i].

    `kind`, `change_kind` and `sums` are the types of weights, change and sums, `block` the elements at a time.
    """
    i = tl.program_id(0)
    line = table + tl.load(owners + i).to(tl.int64) * _FIELDS
    row = tl.load(numbers + i).to(tl.int64)
    columns = tl.load(line + 4)
    gradient = tl.load(line).to(tl.pointer_type(kind)) + row * columns
    change = tl.load(line + 2).to(tl.pointer_type(change_kind)) + row * columns
    norms = tl.load(line + 3).to(tl.pointer_type(tl.float64))
    terms = tl.zeros((block,), dtype=sums)
    for start in range(0, columns, block):
        at = start + tl.arange(0, block)
        inside = at < columns
        g = tl.load(gradient + at, mask=inside, other=0.0).to(sums)
        terms += g * tl.load(change + at, mask=inside, other=0.0).to(sums)
    tl.store(votes + i, tl.sum(terms, axis=0).to(tl.float64) / tl.load(norms + row))


@triton.jit
def project_rows(
    table,
    owners,
    numbers,
    norms,
    kind: tl.constexpr,
    change_kind: tl.constexpr,
    sums: tl.constexpr,
    block: tl.constexpr,
):
    """W_r = W0_r + min(1, gamma / n_r(c)) c_r with c = W~ - W0, in place; c and n_r(c) go into the state too.

    Arguments as in `vote_rows`; norms[i] = n_r(c) of the row i.
    """
    i = tl.program_id(0)
    line = table + tl.load(owners + i).to(tl.int64) * _FIELDS
    row = tl.load(numbers + i).to(tl.int64)
    columns = tl.load(line + 4)
    weights = tl.load(line).to(tl.pointer_type(kind)) + row * columns
    anchor = tl.load(line + 1).to(tl.pointer_type(kind)) + row * columns
    change = tl.load(line + 2).to(tl.pointer_type(change_kind)) + row * columns
    kept_norms = tl.load(line + 3).to(tl.pointer_type(tl.float64))
    radius = tl.load(line + 5).to(tl.float64, bitcast=True).to(sums)
    lengths = tl.zeros((block,), dtype=sums)
    for start in range(0, columns, block):
        at = start + tl.arange(0, block)
        inside = at < columns
        w = tl.load(weights + at, mask=inside, other=0.0).to(sums)
        a = tl.load(anchor + at, mask=inside, other=0.0).to(sums)
        lengths += tl.abs((w - a).to(kind).to(sums))
    norm = tl.sum(lengths, axis=0) + _NORM_EPSILON
    ratio = tl.minimum(radius / norm, 1.0, propagate_nan=tl.PropagateNan.ALL)
    # The row is read once more, out of the cache unless it is a very long one.
    for start in range(0, columns, block):
        at = start + tl.arange(0, block)
        inside = at < columns
        w = tl.load(weights + at, mask=inside, other=0.0).to(sums)
        a = tl.load(anchor + at, mask=inside, other=0.0).to(sums)
        c = (w - a).to(kind)
        tl.store(change + at, c.to(change_kind), mask=inside)
        tl.store(weights + at, (a + c.to(sums) * ratio).to(kind), mask=inside)
    tl.store(kept_norms + row, norm.to(tl.float64))
    tl.store(norms + i, norm.to(tl.float64))
