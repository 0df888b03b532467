"""Vote and project by loops that Numba compiles, on CPU: one pass over memory for each, or for both and Adam's step.

In float32, float64 and bfloat16; other tensors go through plain torch.
"""

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from ftp_cl.projection import numba_kernels
from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.kinds import by_kind
from ftp_cl.projection.radius import Radius
from ftp_cl.projection.rows import same_layout
from ftp_cl.projection.tensor_state import TensorState
from ftp_cl.projection.torch_backend import TorchBackend

logger = logging.getLogger(__name__)

Kind = tuple[torch.dtype, torch.dtype]
"""Dtype of weights, anchor and gradient, and that of the change."""

_ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0), torch.bfloat16: np.uint16(0)}
"""As `numba_kernels` has these dtypes."""

_KINDS = {
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float64, torch.float64),
    (torch.bfloat16, torch.bfloat16),
}
"""Those that the loops take, each compiled by itself. Tensors of others go through plain torch."""

_SMALLEST_SHARE = 1 << 16
"""A thread is worth its start from about so many elements on."""


class NumbaBackend:
    """See `Backend`. Uses as many threads as torch does (`torch.set_num_threads`)."""

    name = "numba"

    def __init__(self) -> None:
        self._torch = TorchBackend()

    def votes(self, gradients: Pairs) -> Sequence[Tensor | float]:
        """See `Backend.votes`."""
        return by_kind(gradients, self.kind_of, self._votes, self._torch.votes)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        return by_kind(weights, self.kind_of, self._project, self._torch.project)

    @staticmethod
    def kind_of(state: TensorState, *tensors: Tensor) -> Kind | None:
        """What the loops take together: tensors on CPU, of the layout of their anchor; None: not these."""
        plan = state.plan or _plan(state)
        if plan.kind is None:
            return None
        dtype, stride, shape = plan.kind[0], plan.stride, plan.shape
        for tensor in tensors:
            if tensor.dtype != dtype or not tensor.is_cpu:
                return None
            same = tensor.stride() == stride and tensor.shape == shape
            if not same and not same_layout(state.covered(tensor), state.anchor):
                return None
        return plan.kind

    def _votes(self, gradients: Pairs) -> list[float]:
        """As `votes`, for tensors that are alike in `kind_of`."""
        table = _table_of([state for state, _ in gradients])
        votes = np.empty(len(table.owners))
        table.run(numba_kernels.vote_rows, [[gradient for _, gradient in gradients]], votes)
        return table.combined(votes, np.add)

    def adam(
        self, states: Sequence[TensorState], columns: Sequence[Sequence[Tensor]], hyper: np.ndarray
    ) -> list[tuple[float, Radius, float]]:
        """Vote, learn the radii, take AdamW's step and project, in one pass over memory; states keep their radii.

        Args:
            states: of tensors that are alike in `kind_of`.
            columns: their weights, gradients, exp_avg and exp_avg_sq.
            hyper: for each, the numbers that `numba_kernels.adam_rows` takes.

        Returns:
            For each tensor its vote, its new radius, and what `project` returns. Where the vote is not finite,
            nothing was done.
        """
        table = _table_of(states)
        votes, partial = np.zeros(len(states)), np.zeros(len(states), dtype=bool)
        if table.cut:  # such a tensor's vote is known only when all threads have read their pieces
            votes[table.cut] = self._votes([(states[i], columns[1][i]) for i in table.cut])
            partial[table.cut] = True
        radii = np.array([(r.value, r.first_moment, r.second_moment, r.steps) for r in (s.radius for s in states)])
        of_pieces = [values[table.owners] for values in (hyper, partial, votes, radii)]
        largest = np.zeros(len(table.owners))
        table.run(numba_kernels.adam_rows, columns, *of_pieces, largest)
        votes[table.owners], radii[table.owners] = of_pieces[2:]
        results = zip(
            votes.tolist(),
            [Radius(value, first, second, int(steps)) for value, first, second, steps in radii.tolist()],
            map(TensorState.confirmed, states, columns[0], table.combined(largest, np.maximum)),
            strict=True,
        )
        return list(results)

    @staticmethod
    def add_to_each(numbers: Sequence[Tensor], amount: float) -> np.ndarray:
        """Add to each of these 0-d tensors, on CPU in float32; returns the sums. Torch takes longer for each."""
        sums = np.empty(len(numbers))
        addresses = np.array([number.data_ptr() for number in numbers], dtype=np.int64)
        numba_kernels.add_to_each(addresses, np.float32(amount), sums)
        return sums

    def _project(self, weights: Pairs) -> list[float]:
        states, tensors = [state for state, _ in weights], [tensor for _, tensor in weights]
        table = _table_of(states)
        radii = np.array([state.radius.value for state in states])[table.owners]
        largest = np.empty(len(table.owners))
        table.run(numba_kernels.project_rows, [tensors], radii, largest)
        return list(map(TensorState.confirmed, states, tensors, table.combined(largest, np.maximum)))


# ---- which tensors -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Plan:
    """What stays the same from step to step for one tensor; asking torch for it takes longer than a small tensor.

    It is equal to itself only: a state whose tensors have been replaced gets another one.

    Attributes:
        shape: of the anchor.
        stride: of the anchor.
        kind: dtypes of anchor and change; None: the compiled loops cannot take them.
        rows: number of rows.
        columns: elements per row.
        addresses: of norms, change and anchor.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    kind: Kind | None
    rows: int
    columns: int
    addresses: tuple[int, int, int]


def _plan(state: TensorState) -> _Plan:
    plan: _Plan | None = state.plan
    if plan is None:
        anchor, change, rows = state.anchor, state.change, state.norms.numel()
        kind = anchor.dtype, change.dtype
        plan = state.plan = _Plan(
            shape=anchor.shape,
            stride=anchor.stride(),
            kind=kind if kind in _KINDS and anchor.is_cpu and change.is_cpu else None,
            rows=rows,
            columns=anchor.numel() // rows,
            addresses=(state.norms.data_ptr(), change.data_ptr(), anchor.data_ptr()),
        )
    return plan


# ---- running loops on them ---------------------------------------------------------------------------------------


class _Table:
    """Tensors of one kind, cut between rows into pieces, so that each thread has as many elements as the others.

    Args:
        plans: of the tensors.
        threads: number of threads at most.

    Attributes:
        owners: the tensor that each piece is of, shape [pieces].
        cut: those tensors that are more than one piece.
    """

    def __init__(self, plans: Sequence[_Plan], threads: int) -> None:
        elements = sum(plan.rows * plan.columns for plan in plans)
        threads = max(1, min(threads, elements // _SMALLEST_SHARE))
        cuts = _cuts(plans, elements / threads)
        kind = plans[0].kind
        assert kind is not None
        self._kind = kind
        self.owners = np.array([owner for owner, _, _ in cuts])
        self.cut: list[int] = np.flatnonzero(np.bincount(self.owners) > 1).tolist()
        before = np.array([start * plans[owner].columns for owner, start, _ in cuts])
        self._offsets = before * kind[0].itemsize  # in bytes, from the tensor's first element
        self._fixed = np.empty((len(cuts), 5), dtype=np.int64)
        for line, (owner, start, end) in enumerate(cuts):
            norms, change, anchor = plans[owner].addresses
            change, anchor = change + before[line] * kind[1].itemsize, anchor + self._offsets[line]
            self._fixed[line] = end - start, plans[owner].columns, norms + 8 * start, change, anchor
        sizes = self._fixed[:, 0] * self._fixed[:, 1]
        middles = np.cumsum(sizes) - sizes / 2
        bounds = [*np.searchsorted(middles, elements / threads * np.arange(threads)), len(cuts)]
        self._shares = [slice(start, end) for start, end in itertools.pairwise(bounds) if start < end]

    def run(self, kernel: Callable[..., None], columns: Sequence[Sequence[Tensor]], *arrays: np.ndarray) -> None:
        """Run a kernel of `numba_kernels` on all pieces.

        Args:
            kernel: what to run.
            columns: the tensors whose addresses the kernel's table holds after the norms, change and anchor.
            arrays: the kernel's further arguments, with a line for each piece, that it reads or writes.
        """
        _announce(kernel, self._kind)
        addresses = np.array([[tensor.data_ptr() for tensor in column] for column in columns], dtype=np.int64)
        table = np.empty((len(self.owners), 5 + len(columns)), dtype=np.int64)
        table[:, :5] = self._fixed
        table[:, 5:] = (addresses[:, self.owners] + self._offsets).T
        zeros = [_ZEROS[dtype] for dtype in self._kind]

        def work(share: slice) -> None:
            kernel(table[share], *zeros, *[array[share] for array in arrays])

        waiting = [_pool(os.getpid()).submit(work, share) for share in self._shares[1:]]
        work(self._shares[0])
        for future in waiting:
            future.result()

    def combined(self, values: np.ndarray, combine: np.ufunc) -> list[float]:
        """One number for each tensor, from one for each of its pieces."""
        results = np.zeros(self.owners[-1] + 1)
        with np.errstate(invalid="ignore"):  # NaN is an answer here
            combine.at(results, self.owners, values)
        return results.tolist()


def _table_of(states: Sequence[TensorState]) -> _Table:
    return _table(tuple([state.plan for state in states]), torch.get_num_threads())


@lru_cache(maxsize=1024)
def _table(plans: tuple[_Plan, ...], threads: int) -> _Table:
    """Steps usually work on the same tensors. A plan that is kept here keeps no tensor."""
    return _Table(plans, threads)


def _cuts(plans: Sequence[_Plan], room: float) -> list[tuple[int, int, int]]:
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
def _announce(kernel: Callable[..., None], kind: Kind) -> None:
    """Say that the first use compiles, which takes seconds unless the code is kept on disk from an earlier run."""
    names = " and ".join(sorted({str(dtype) for dtype in kind}))
    logger.info("Compiling %s for %s (kept on disk for later runs).", kernel.__name__, names)
