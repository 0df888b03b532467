"""Vote and project by loops that Numba compiles: one pass over memory for each, on CPU.

In float32, float64 and bfloat16; other tensors go through plain torch.
"""

import itertools
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftp_cl.projection import numba_kernels
from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.kinds import by_kind
from ftp_cl.projection.rows import same_layout
from ftp_cl.projection.tensor_state import TensorState
from ftp_cl.projection.torch_backend import TorchBackend

logger = logging.getLogger(__name__)

Work = Sequence[tuple[TensorState, Sequence[Tensor]]]

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
        return by_kind(gradients, kind_of, self.votes_of_one_kind, self._torch.votes)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        return by_kind(weights, kind_of, self._project, self._torch.project)

    def adam(self, work: Work, hyper: Sequence[Sequence[float]]) -> list[float]:
        """AdamW's step and the projection, in one pass over memory.

        Args:
            work: (state, (weights, gradient, exp_avg, exp_avg_sq)) of tensors that are alike in `kind_of`.
            hyper: for each, the numbers that `numba_kernels.adam_rows` takes.

        Returns:
            As `project`.
        """
        states = [state for state, _ in work]
        columns = list(zip(*(tensors for _, tensors in work), strict=True))
        largest = _table_of(states).run(numba_kernels.adam_rows, columns, [_radii(states), hyper], np.maximum)
        return [state.confirmed(t[0], norm) for (state, t), norm in zip(work, largest, strict=True)]

    def votes_of_one_kind(self, gradients: Pairs) -> list[float]:
        """As `votes`, for tensors that are alike in `kind_of`."""
        table = _table_of([state for state, _ in gradients])
        return table.run(numba_kernels.vote_rows, [[gradient for _, gradient in gradients]], [], np.add)

    def _project(self, weights: Pairs) -> list[float]:
        states = [state for state, _ in weights]
        columns = [[tensor for _, tensor in weights]]
        largest = _table_of(states).run(numba_kernels.project_rows, columns, [_radii(states)], np.maximum)
        return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, largest, strict=True)]


def _radii(states: Sequence[TensorState]) -> list[float]:
    return [state.radius.value for state in states]


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


def kind_of(state: TensorState, tensor: Tensor) -> Kind | None:
    """What the compiled loops take together: tensors on CPU, of the layout of their anchor; None: not this one."""
    plan = state.plan or _plan(state)
    if plan.kind is None or tensor.dtype != plan.kind[0] or not tensor.is_cpu:
        return None
    if tensor.stride() == plan.stride and tensor.shape == plan.shape:
        return plan.kind
    return plan.kind if same_layout(state.covered(tensor), state.anchor) else None


# ---- running loops on them ---------------------------------------------------------------------------------------


class _Table:
    """Tensors of one kind, cut between rows into pieces, so that each thread has as many elements as the others.

    Args:
        plans: of the tensors.
        threads: number of threads at most.
    """

    def __init__(self, plans: Sequence[_Plan], threads: int) -> None:
        elements = sum(plan.rows * plan.columns for plan in plans)
        threads = max(1, min(threads, elements // _SMALLEST_SHARE))
        cuts = _cuts(plans, elements / threads)
        kind = plans[0].kind
        assert kind is not None
        self._kind = kind
        # One entry for each piece: its tensor, and the distance in bytes from that tensor's first element.
        self._owners = np.array([owner for owner, _, _ in cuts])
        before = np.array([start * plans[owner].columns for owner, start, _ in cuts])
        self._offsets = before * kind[0].itemsize
        self._fixed = np.empty((len(cuts), 5), dtype=np.int64)
        for line, (owner, start, end) in enumerate(cuts):
            norms, change, anchor = plans[owner].addresses
            change, anchor = change + before[line] * kind[1].itemsize, anchor + self._offsets[line]
            self._fixed[line] = end - start, plans[owner].columns, norms + 8 * start, change, anchor
        sizes = self._fixed[:, 0] * self._fixed[:, 1]
        middles = np.cumsum(sizes) - sizes / 2
        bounds = [*np.searchsorted(middles, elements / threads * np.arange(threads)), len(cuts)]
        self._shares = [slice(start, end) for start, end in itertools.pairwise(bounds) if start < end]

    def run(
        self,
        kernel: Callable[..., None],
        columns: Sequence[Sequence[Tensor]],
        parameters: Sequence[Any],
        combine: np.ufunc,
    ) -> list[float]:
        """Results of a kernel of `numba_kernels`, one for each tensor.

        Args:
            kernel: what to run.
            columns: the tensors whose addresses the kernel's table holds after the norms, change and anchor.
            parameters: arguments of the kernel that have one entry for each tensor.
            combine: puts together the results of one tensor's pieces.
        """
        _announce(kernel, self._kind)
        addresses = np.array([[tensor.data_ptr() for tensor in column] for column in columns], dtype=np.int64)
        table = np.empty((len(self._owners), 5 + len(columns)), dtype=np.int64)
        table[:, :5] = self._fixed
        table[:, 5:] = (addresses[:, self._owners] + self._offsets).T
        arrays = [np.asarray(values, dtype=np.float64)[self._owners] for values in parameters]
        partial = np.empty(len(self._owners))
        zeros = [_ZEROS[dtype] for dtype in self._kind]

        def work(share: slice) -> None:
            kernel(table[share], *zeros, *[array[share] for array in arrays], partial[share])

        waiting = [_pool(os.getpid()).submit(work, share) for share in self._shares[1:]]
        work(self._shares[0])
        for future in waiting:
            future.result()
        results = np.zeros(addresses.shape[1])
        with np.errstate(invalid="ignore"):  # NaN is an answer here
            combine.at(results, self._owners, partial)
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
