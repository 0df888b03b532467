"""Vote and project by loops that Numba compiles: one pass over memory for each, on CPU, in float32 and float64.

Tensors of other kinds go through plain torch.
"""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ftp_cl.projection import numba_kernels
from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.rows import same_layout
from ftp_cl.projection.tensor_state import TensorState
from ftp_cl.projection.torch_backend import TorchBackend

logger = logging.getLogger(__name__)

Work = Sequence[tuple[TensorState, Sequence[Tensor]]]

_ZEROS = {torch.float32: np.float32(0), torch.float64: np.float64(0)}

_SMALLEST_SHARE = 1 << 16
"""A thread is worth its start from about so many elements on."""


class NumbaBackend:
    """See `Backend`. Uses as many threads as torch does (`torch.set_num_threads`)."""

    name = "numba"

    def __init__(self) -> None:
        self._torch = TorchBackend()

    def votes(self, gradients: Pairs) -> list[Tensor | float]:
        """See `Backend.votes`."""
        covered = [(state, state.covered(gradient)) for state, gradient in gradients]
        return _by_kind(covered, self.votes_of_one_kind, self._torch.votes)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        covered = [(state, state.covered(tensor)) for state, tensor in weights]
        return _by_kind(covered, self._project, self._torch.project)

    def adam(self, work: Work, hyper: Sequence[Sequence[float]]) -> list[float]:
        """AdamW's step and the projection, in one pass over memory.

        Args:
            work: (state, (weights, gradient, exp_avg, exp_avg_sq)) of tensors of one dtype that `can_take` accepts.
            hyper: for each, the numbers that `numba_kernels.adam_rows` takes.

        Returns:
            As `project`.
        """
        jobs: Work = [(state, (state.change, state.anchor, *tensors)) for state, tensors in work]
        radii = [state.radius.value for state, _ in work]
        largest = _run(numba_kernels.adam_rows, jobs, [radii, hyper], np.maximum)
        return [state.confirmed(t[0], norm) for (state, t), norm in zip(work, largest, strict=True)]

    def votes_of_one_kind(self, gradients: Pairs) -> list[float]:
        """As `votes`, for tensors of one dtype that `can_take` accepts."""
        return _run(numba_kernels.vote_rows, [(state, (g, state.change)) for state, g in gradients], [], np.add)

    def _project(self, weights: Pairs) -> list[float]:
        jobs = [(state, (state.change, state.anchor, tensor)) for state, tensor in weights]
        largest = _run(numba_kernels.project_rows, jobs, [[state.radius.value for state, _ in weights]], np.maximum)
        return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, largest, strict=True)]


class _Plan(NamedTuple):
    """What stays the same from step to step for one tensor; asking torch for it takes longer than a small tensor."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype | None
    rows: int
    columns: int
    norms: int


def _plan(state: TensorState) -> _Plan:
    if state.plan is None:
        anchor, rows = state.anchor, state.norms.numel()
        fits = anchor.dtype in _ZEROS and anchor.dtype == state.change.dtype and anchor.is_cpu and state.change.is_cpu
        dtype = anchor.dtype if fits else None
        state.plan = _Plan(anchor.shape, anchor.stride(), dtype, rows, anchor.numel() // rows, state.norms.data_ptr())
    return state.plan


def can_take(state: TensorState, tensor: Tensor) -> bool:
    """Whether the compiled loops can work on a tensor beside this state: equal dtype and layout, on CPU."""
    plan = _plan(state)
    return (
        tensor.dtype == plan.dtype
        and tensor.is_cpu
        and tensor.shape == plan.shape
        and (tensor.stride() == plan.stride or same_layout(tensor, state.anchor))
    )


def _by_kind(pairs: Pairs, run: Callable[[Pairs], list], otherwise: Callable[[Pairs], list]) -> list[Any]:
    """Results of `run` for each dtype's tensors and of `otherwise` for those that cannot be taken, in order."""
    kinds: dict[torch.dtype | None, list[int]] = {}
    for i, (state, tensor) in enumerate(pairs):
        kinds.setdefault(tensor.dtype if can_take(state, tensor) else None, []).append(i)
    results: dict[int, Any] = {}
    for dtype, indices in kinds.items():
        chosen = [pairs[i] for i in indices]
        results.update(zip(indices, otherwise(chosen) if dtype is None else run(chosen), strict=True))
    return [results[i] for i in range(len(pairs))]


def _run(
    kernel: Callable[..., None],
    jobs: Work,
    parameters: Sequence[Sequence[Any]],
    combine: np.ufunc,
) -> list[float]:
    """Run a kernel over tensors of one dtype, on as many threads as torch uses.

    Args:
        kernel: of `numba_kernels`.
        jobs: for each tensor its state and the tensors whose addresses the kernel's table holds after the norms.
        parameters: further arguments of the kernel, each with one entry for each tensor.
        combine: puts together the results of one tensor's pieces.
    """
    first = jobs[0][1][0]
    lines = []
    for state, tensors in jobs:
        plan = _plan(state)
        lines.append((plan.rows, plan.columns, plan.norms, *[tensor.data_ptr() for tensor in tensors]))
    elements = sum(line[0] * line[1] for line in lines)
    threads = max(1, min(torch.get_num_threads(), elements // _SMALLEST_SHARE))
    arrays = [np.asarray(values, dtype=np.float64) for values in parameters]

    def work(share: "_Share") -> tuple[list[int], np.ndarray]:
        owners, pieces = share
        partial = np.empty(len(owners))
        kernel(np.array(pieces, dtype=np.int64), _ZEROS[first.dtype], *[array[owners] for array in arrays], partial)
        return owners, partial

    _announce(kernel, first.dtype)
    shares = _shares(lines, first.element_size(), threads, elements)
    waiting = [_pool(os.getpid()).submit(work, share) for share in shares[1:]]
    results = np.zeros(len(jobs))
    for owners, partial in [work(shares[0]), *(future.result() for future in waiting)]:
        with np.errstate(invalid="ignore"):  # NaN is an answer here
            combine.at(results, owners, partial)
    return results.tolist()


_Share = tuple[list[int], list[tuple[int, ...]]]


def _shares(lines: Sequence[tuple[int, ...]], element_size: int, threads: int, elements: int) -> list[_Share]:
    """One share of about equal work for each thread: lines of the table, cut between rows, and whose they are."""
    if threads == 1:
        return [(list(range(len(lines))), list(lines))]
    shares: list[_Share] = [([], []) for _ in range(threads)]
    number, room = 0, elements / threads
    for owner, (rows, columns, norms, *addresses) in enumerate(lines):
        done = 0
        while done < rows:
            last = number == threads - 1
            taken = rows - done if last else min(rows - done, max(1, round(room / max(columns, 1))))
            moved = [address + done * columns * element_size for address in addresses]
            shares[number][0].append(owner)
            shares[number][1].append((taken, columns, norms + done * 8, *moved))
            done += taken
            room -= taken * columns
            if room <= 0 and not last:
                number, room = number + 1, room + elements / threads
    return [share for share in shares if share[0]]


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; of this process, because a forked one has none of its parent's."""
    return ThreadPoolExecutor(thread_name_prefix="ftp_cl")


@cache
def _announce(kernel: Callable[..., None], dtype: torch.dtype) -> None:
    """Say that the first use compiles, which takes seconds unless the code is kept on disk from an earlier run."""
    logger.info("Compiling %s for %s (kept on disk for later runs).", kernel.__name__, dtype)
