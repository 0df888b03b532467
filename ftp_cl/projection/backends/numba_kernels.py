"""The loops that Numba compiles: each works on a table of tensors, given by address, in one call without the GIL.

A table has one line for each piece of consecutive rows of one tensor, in int64: rows, elements per row, then addresses:
of the tensor's numbers (see `radius.NUMBERS`), and of the first element of this piece in the row norms, the change c',
the anchor W0, and the tensors that the loop's docstring names. Elements have the dtype of the argument `zero`, those of
the anchor that of `centre`, those of the change that of `kept`, which is None where none is kept, in one pass; norms
and numbers are float64. Sums over a block of a row are taken in the tensor's dtype, in as many partial sums as a vector
has lanes, and those of blocks in float64: nearly as exact as float64 throughout, and faster. bfloat16 stands here as
uint16. Numba's cache on disk notices a change in the file of a loop only: see `_IMPORTED`.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numba.np.unsafe.ndarray import to_fixed_tuple

from ftp_cl.projection import radius, rows
from ftp_cl.projection.backends import numba_lanes, numba_stretches
from ftp_cl.projection.radius import SKIPPED, VALUE
from ftp_cl.projection.rows import NORM_EPSILON

logger = logging.getLogger(__name__)

# Sums may be taken in any order, which vector instructions need; NaN and infinities keep their meaning.
_OPTIONS: Any = {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}, "error_model": "numpy"}

_begin, _learn, _clip = (
    numba.njit(forceinline=True, error_model="numpy")(move) for move in (radius.begin, radius.learn, radius.clip)
)

# Numba finds out by itself that this file has changed since it compiled a loop, but not that what it imports has.
_IMPORTED = (numba_lanes, numba_stretches, radius, rows)
_DIGEST = hashlib.sha256(b"".join(Path(str(part.__file__)).read_bytes() for part in _IMPORTED)).hexdigest()

OTHERS = 6
"""Where the addresses of other tensors begin in a line of a table."""

BLOCK = 1024
"""Elements whose sum is taken in single precision."""


def _compiled(loop: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk for later runs where a place can be written."""
    loop.__qualname__ += f"-{_DIGEST[:8]}"  # part of the file's name there
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


@_inlined
def _finite(number):
    """As np.isfinite, which subtracts a number from itself: sums taken in any order may make that 0."""
    return abs(number) < np.inf


# ---- one row ---------------------------------------------------------------------------------------------------------


@_inlined
def _against(row, columns, w, a, g, zero, centre):
    """n_r of w - a, and <g, w - a>."""
    norm, dot, first = NORM_EPSILON, 0.0, row * columns
    for start in range(0, columns, BLOCK):
        length = min(BLOCK, columns - start)
        sums = numba_stretches.distance(length, first + start, (w, a, g), (zero, centre, zero))
        norm, dot = norm + sums[0], dot + sums[1]
    return norm, dot


@_inlined
def _settle(row, columns, w, a, c, zero, centre, kept, norm, norms, radius):
    """Project a row whose norm is known; returns it, or 0 if it is not finite: the row stays, without a change.

    The next row is fetched meanwhile.
    """
    finite = _finite(norm)
    ratio = radius / norm if finite else np.nan
    numba_stretches.place(columns, row * columns, (w, a, c), (zero, centre, kept), ratio, columns)
    norms[row] = norm if finite else NORM_EPSILON
    return norm if finite else 0.0


@_inlined
def _vote(norms, columns, g, c, zero, kept, least):
    """The sum of <g_r, c_r> / n_r over rows that are longer than `least`; not finite if any is not."""
    vote = 0.0
    for row in range(len(norms)):
        dot, first = 0.0, row * columns
        for start in range(0, columns, BLOCK):
            dot += numba_stretches.dot(min(BLOCK, columns - start), first + start, (g, c), (zero, kept))
        if norms[row] > least or not _finite(dot):
            vote += dot / norms[row]
    return vote


# ---- tables ----------------------------------------------------------------------------------------------------------


@_inlined
def _line(address, length):
    """So many float64 at an address."""
    return carray(_pointer(address, 0.0), (length,))


@_compiled
def start(lines, first_radius, learning, votes, k, mu):
    """Count the step in the numbers at each address in `lines`, and move the radius along the vote where `learning`."""
    for i in range(len(lines)):
        line = _line(lines[i], SKIPPED + 1)
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
        line = _line(lines[i], SKIPPED + 1)
        _clip(line, longest[i])
        if learning:
            _learn(line, votes[i], k[i], mu)
        skipped[i] |= not _finite(votes[i])
        line[SKIPPED] += skipped[i]


@_compiled
def vote_rows(table, zero, centre, kept, exact, votes):
    """votes[piece] = sum over rows of <g_r, c'_r> / n_r; `exact`: over those longer than the radius. Another: g."""
    for piece in range(len(table)):
        rows, columns, numbers, of_norms, c, _, g = to_fixed_tuple(table[piece], 7)
        norms, line = _line(of_norms, rows), _line(numbers, SKIPPED + 1)
        votes[piece] = _vote(norms, columns, g, c, zero, kept, line[VALUE] if exact else 0.0)


@_compiled
def vote_rows_of_weights(table, zero, centre, votes):
    """votes[piece] = sum over rows of <g_r, W_r - W0_r> / n_r(W - W0). Others: g, W."""
    for piece in range(len(table)):
        rows, columns, _, _, _, a, g, w = to_fixed_tuple(table[piece], 8)
        vote = 0.0
        for row in range(rows):
            norm, dot = _against(row, columns, w, a, g, zero, centre)
            vote += dot / norm
        votes[piece] = vote


@_compiled
def project_rows(table, zero, centre, kept, largest, bad):
    """W_r = W0_r + min(1, radius / n_r) c_r with c = W~ - W0. Another: W.

    largest[piece] is the largest norm n_r of finite ones, 0 for none, and bad[piece] says whether there are others.
    """
    for piece in range(len(table)):
        rows, columns, numbers, of_norms, c, a, w = to_fixed_tuple(table[piece], 7)
        norms, radius, longest = _line(of_norms, rows), _line(numbers, SKIPPED + 1)[VALUE], 0.0
        for row in range(rows):
            norm, _ = _against(row, columns, w, a, w, zero, centre)
            norm = _settle(row, columns, w, a, c, zero, centre, kept, norm, norms, radius)
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
    for piece in range(len(table)):
        rows, columns, numbers, of_norms, c, a, w, g, m, v = to_fixed_tuple(table[piece], 10)
        norms, line = _line(of_norms, rows), _line(numbers, SKIPPED + 1)
        k, sign, lr, decay, beta1, beta2, eps = to_fixed_tuple(hyper[piece], 7)
        if kept is not None and not voted[piece]:
            votes[piece] = sign * _vote(norms, columns, g, c, zero, kept, line[VALUE] if exact else 0.0)
            _learn(line, votes[piece], k, mu)
        rate, root = lr / (1 - beta1 ** steps[piece]), np.sqrt(1 - beta2 ** steps[piece])
        adam = (1 - lr * decay, 1 - beta1, beta2, 1 - beta2, rate, root, eps, sign)
        radius, longest, total = line[VALUE], 0.0, 0.0
        for row in range(rows):
            norm, before, dot = NORM_EPSILON, NORM_EPSILON, 0.0
            for start in range(0, columns, BLOCK):
                length, first = min(BLOCK, columns - start), row * columns + start
                sums = numba_stretches.adam(
                    length, first, (w, a, g, m, v), (zero, centre, zero, zero, zero), kept, adam
                )
                norm, before, dot = norm + sums[0], before + sums[1], dot + sums[2]
            norm = _settle(row, columns, w, a, c, zero, centre, kept, norm, norms, radius)
            longest, total = max(longest, norm), total + dot / before
            bad[piece] |= norm == 0
        largest[piece] = longest
        if kept is None:
            votes[piece] = sign * total


@_compiled
def count(addresses):
    """Add 1 to the float32 at each address; returns the results."""
    sums, one = np.empty(len(addresses)), np.float32(1)
    for i in range(len(addresses)):
        number = carray(_pointer(addresses[i], one), (1,))
        number[0] += one
        sums[i] = number[0]
    return sums
