"""FTP's step by loops that Numba compiles, on CPU: a pass for votes and one to project, or one with Adam's step.

In float32, float64 and bfloat16; other tensors go through plain torch.
"""

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftp_cl.projection.backends import numba_kernels
from ftp_cl.projection.backends.plan import Layout, Plan, layout_of
from ftp_cl.projection.backends.protocol import Rule, Scaler, Update

logger = logging.getLogger(__name__)

_ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0), torch.bfloat16: np.uint16(0), None: None}
"""As `numba_kernels` has these dtypes."""

_WEIGHTS = {torch.float32: {torch.float32, torch.bfloat16}, torch.float64: {torch.float64}}
_WEIGHTS[torch.bfloat16] = {torch.bfloat16}
"""Dtypes of weights, and of the anchor and change beside them, that the loops take, each compiled by itself."""


@cache
def _takes(layout: Layout) -> bool:
    device, weights, anchor, change = layout
    return device.type == "cpu" and {anchor, change or anchor} <= _WEIGHTS.get(weights, set())


_SMALLEST_SHARE = 1 << 16
"""A thread is worth its start from about so many elements on."""


class NumbaBackend:
    """See `Backend`. Uses as many threads as torch does (`torch.set_num_threads`)."""

    name = "numba"

    def layout(self, update: Update, *others: Tensor) -> Layout | None:
        """See `layout_of`."""
        layout = layout_of(update, *others)
        return layout if layout is not None and _takes(layout) else None

    def vote(self, updates: Sequence[Update], rule: Rule) -> np.ndarray:
        """See `Backend.vote`; votes are of shape [updates]."""
        return self._votes(_table_of(updates), updates, rule)

    def _votes(self, table: "_Table", updates: Sequence[Update], rule: Rule) -> np.ndarray:
        votes, gradients = np.empty(len(table.owners)), [update.gradient for update in updates]
        if rule.one_pass:
            weights = [update.weights for update in updates]
            table.run(numba_kernels.vote_rows_of_weights, table.zeros[:2], [gradients, weights], votes)
        else:
            table.run(numba_kernels.vote_rows, (*table.zeros, rule.method == "exact"), [gradients], votes)
        return table.summed(votes)

    def project(self, updates: Sequence[Update], votes: np.ndarray, rule: Rule, scaler: Scaler) -> Tensor:
        """See `Backend.project`."""
        if scaler.found_inf is not None and scaler.found_inf.numpy() > 0:
            return torch.zeros(len(updates), dtype=torch.bool, device="cpu")
        table, k = _table_of(updates), np.array([update.k for update in updates])
        votes = votes * np.array([update.sign for update in updates])
        if scaler.scale is not None:
            votes /= scaler.scale.numpy()
        learning = np.full(len(updates), not rule.one_pass)
        numba_kernels.start(table.lines, rule.first_radius, learning, votes, k, rule.mu)
        largest, bad = table.per_piece(0.0), table.per_piece(False)
        table.run(numba_kernels.project_rows, table.zeros, [[update.weights for update in updates]], largest, bad)
        return table.finish(largest, bad, votes, k, rule)

    def adam(
        self, updates: Sequence[Update], columns: Sequence[Sequence[Tensor]], hyper: np.ndarray, rule: Rule
    ) -> Tensor:
        """Vote, learn the radii, take AdamW's step and project, in one pass over memory.

        Args:
            updates: of tensors that are alike in `layout`.
            columns: their exp_avg, exp_avg_sq and numbers of steps, which are counted here.
            hyper: for each, the numbers that `numba_kernels.adam_rows` takes.
            rule: see `Backend`.

        Returns:
            As `Backend.project`.
        """
        table, k = _table_of(updates), hyper[:, 0].copy()
        votes, voted = np.zeros(len(updates)), np.zeros(len(updates), dtype=bool)
        if (
            table.cut and not rule.one_pass
        ):  # such a tensor's vote is known only when all threads have read their pieces
            cut = [updates[i] for i in table.cut]
            votes[table.cut] = self._votes(_table_of(cut), cut, rule) * hyper[table.cut, 1]
            voted[table.cut] = True
        numba_kernels.start(table.lines, rule.first_radius, voted, votes, k, rule.mu)
        of_pieces = [values[table.owners] for values in (voted, votes)]
        largest, bad = table.per_piece(0.0), table.per_piece(False)
        given = [[update.weights for update in updates], [update.gradient for update in updates], *columns[:2]]
        steps = numba_kernels.count(np.array(list(map(Tensor.data_ptr, columns[2]))))
        fixed = (*table.zeros, rule.mu, rule.method == "exact")
        of_each = hyper[table.owners], steps[table.owners]
        table.run(numba_kernels.adam_rows, fixed, given, *of_each, *of_pieces, largest, bad)
        if rule.one_pass:
            votes = table.summed(of_pieces[1])
        else:
            votes[table.owners] = of_pieces[1]
        return table.finish(largest, bad, votes, k, rule)


# ---- running loops on them ---------------------------------------------------------------------------------------


class _Table:
    """Tensors of one layout, cut between rows into pieces, so that each thread has as many elements as the others.

    Args:
        plans: of the tensors.
        threads: number of threads at most.

    Attributes:
        zeros: of the dtypes of weights, anchor and change.
        lines: where the numbers of each tensor are.
        owners: the tensor that each piece is of, shape [pieces].
        cut: those tensors that are more than one piece.
    """

    def __init__(self, plans: Sequence[Plan], threads: int) -> None:
        elements = sum(plan.rows * plan.columns for plan in plans)
        threads = max(1, min(threads, elements // _SMALLEST_SHARE))
        cuts = _cuts(plans, elements / threads)
        assert plans[0].layout is not None
        self._dtypes = weights, anchor, change = plans[0].layout[1:]
        self.zeros = tuple(_ZEROS[dtype] for dtype in self._dtypes)
        self.lines = np.array([plan.addresses[0] for plan in plans])
        self.owners = np.array([owner for owner, _, _ in cuts])
        self.cut: list[int] = np.flatnonzero(np.bincount(self.owners) > 1).tolist()
        before = np.array([start * plans[owner].columns for owner, start, _ in cuts])
        self._offsets = before * weights.itemsize  # in bytes, from the tensor's first element
        self._fixed = np.empty((len(cuts), numba_kernels.OTHERS), dtype=np.int64)
        sizes = [8, change.itemsize if change else 0, anchor.itemsize]
        for line, (owner, start, end) in enumerate(cuts):
            numbers, *addresses = plans[owner].addresses
            moved = [
                a + n * size for a, n, size in zip(addresses, (start, before[line], before[line]), sizes, strict=True)
            ]
            self._fixed[line] = end - start, plans[owner].columns, numbers, *moved
        lengths = self._fixed[:, 0] * self._fixed[:, 1]
        middles = np.cumsum(lengths) - lengths / 2
        bounds = [*np.searchsorted(middles, elements / threads * np.arange(threads)), len(cuts)]
        self._shares = [slice(start, end) for start, end in itertools.pairwise(bounds) if start < end]

    def run(
        self,
        kernel: Callable[..., None],
        fixed: Sequence[Any],
        columns: Sequence[Sequence[Tensor]],
        *arrays: np.ndarray,
    ) -> None:
        """Run a kernel of `numba_kernels` on all pieces.

        Args:
            kernel: what to run.
            fixed: its first arguments after the table, the same for all pieces.
            columns: the tensors whose addresses the kernel's table holds after those of the state.
            arrays: the kernel's further arguments, with a line for each piece, that it reads or writes.
        """
        _announce(kernel, self._dtypes)
        addresses = np.array([list(map(Tensor.data_ptr, column)) for column in columns], dtype=np.int64)
        table = np.empty((len(self.owners), numba_kernels.OTHERS + len(columns)), dtype=np.int64)
        table[:, : numba_kernels.OTHERS] = self._fixed
        table[:, numba_kernels.OTHERS :] = (addresses[:, self.owners] + self._offsets).T

        def work(share: slice) -> None:
            kernel(table[share], *fixed, *[array[share] for array in arrays])

        waiting = [_pool(os.getpid()).submit(work, share) for share in self._shares[1:]]
        work(self._shares[0])
        for future in waiting:
            future.result()

    def per_piece(self, value: Any) -> np.ndarray:
        """A number for each piece, the same at first."""
        return np.full(len(self.owners), value)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """The sum for each tensor of one number for each of its pieces."""
        return np.bincount(self.owners, values)

    def finish(self, largest: np.ndarray, bad: np.ndarray, votes: np.ndarray, k: np.ndarray, rule: Rule) -> Tensor:
        """Bound the radii, move those that learn after the projection, and count skips; returns those, as a tensor."""
        skipped = np.zeros(len(self.lines), dtype=bool)
        numba_kernels.finish(self.lines, self.owners, largest, bad, rule.one_pass, votes, k, rule.mu, skipped)
        return torch.from_numpy(skipped)


def _table_of(updates: Sequence[Update]) -> _Table:
    return _table(tuple([update.state.plan for update in updates]), torch.get_num_threads())


@lru_cache(maxsize=1024)
def _table(plans: tuple[Plan, ...], threads: int) -> _Table:
    """Steps usually work on the same tensors. A plan that is kept here keeps no tensor."""
    return _Table(plans, threads)


def _cuts(plans: Sequence[Plan], room: float) -> list[tuple[int, int, int]]:
    """(tensor, first row, last row + 1) of pieces: all tensors in a row, cut where every `room` elements are full."""
    cuts, before = [], 0
    for owner, plan in enumerate(plans):
        start, elements = 0, plan.rows * plan.columns
        for share in range(int(before // room) + 1, int((before + elements) // room) + 1):
            end = min(plan.rows, round((share * room - before) / plan.columns))
            if end > start:
                cuts.append((owner, start, end))
                start = end
        if start < plan.rows:
            cuts.append((owner, start, plan.rows))
        before += elements
    return cuts


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; of this process, because a forked one has none of its parent's."""
    return ThreadPoolExecutor(thread_name_prefix="ftp_cl")


@cache
def _announce(kernel: Callable[..., None], dtypes: tuple[torch.dtype | None, ...]) -> None:
    """Say that the first use compiles, which takes seconds unless the code is kept on disk from an earlier run."""
    names = " and ".join(sorted({str(dtype) for dtype in dtypes if dtype}))
    logger.info("Compiling %s for %s (kept on disk for later runs).", kernel.__name__, names)
