"""Vote and project on a GPU by Triton kernels: two launches a step for all tensors of one kind.

Tensors of other kinds, those on CPU among them, go through plain torch.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from ftp_cl.projection import triton_kernels
from ftp_cl.projection.backends import Pairs, triton_is_interpreted
from ftp_cl.projection.kinds import by_kind
from ftp_cl.projection.rows import accumulation_dtype, same_layout
from ftp_cl.projection.tensor_state import TensorState
from ftp_cl.projection.torch_backend import TorchBackend, to_floats

_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

BLOCK = 1024
"""Elements of a row at a time: 8 for each of the 128 threads that a program has."""

LONGEST_ROW = 1 << 20
"""One program walks along a row; a longer one is left to plain torch, which spreads it over the device."""


class TritonBackend:
    """See `Backend`. Triton compiles at the first use, in seconds, and keeps the code in its own cache on disk."""

    name = "triton"

    def __init__(self) -> None:
        self._torch = TorchBackend()

    def votes(self, gradients: Pairs) -> Sequence[Tensor | float]:
        """See `Backend.votes`."""
        return by_kind(gradients, _kind, _votes, self._torch.votes)

    def project(self, weights: Pairs) -> list[float]:
        """See `Backend.project`."""
        return by_kind(weights, _kind, _project, self._torch.project)


def _kind(state: TensorState, tensor: Tensor) -> Hashable:
    """What tensors of one launch have in common; None: the kernels cannot take this one."""
    anchor, change = state.anchor, state.change
    here = tensor.device == anchor.device == change.device and state.norms.dtype == torch.float64
    if not (here and (tensor.is_cuda or triton_is_interpreted()) and tensor.dtype == anchor.dtype):
        return None
    if not {tensor.dtype, change.dtype} <= _TYPES.keys() or _columns(state) > LONGEST_ROW:
        return None
    if not same_layout(state.covered(tensor), anchor):
        return None
    return tensor.device, tensor.dtype, change.dtype


def _columns(state: TensorState) -> int:
    return state.anchor.numel() // state.norms.numel()


def _votes(gradients: Pairs) -> Sequence[Tensor]:
    """Votes of tensors of one kind, 0-d, still computing on their device."""
    return _launch(triton_kernels.vote_rows, gradients, "sum")


def _project(weights: Pairs) -> list[float]:
    """Largest row norms of tensors of one kind, which are projected."""
    largest = to_floats(_launch(triton_kernels.project_rows, weights, "max"))
    return [state.confirmed(tensor, norm) for (state, tensor), norm in zip(weights, largest, strict=True)]


def _launch(kernel: Any, pairs: Pairs, reduction: str) -> Sequence[Tensor]:
    """Run a kernel over all rows; its number for each row, reduced to one for each tensor."""
    first, change = pairs[0][1], pairs[0][0].change
    rows = _rows(tuple(state.norms.numel() for state, _ in pairs), first.device)
    of_row = torch.empty(len(rows.owners), dtype=torch.float64, device=first.device)
    with torch.cuda.device_of(first):
        kernel[(len(rows.owners),)](
            _table(pairs).to(first.device, non_blocking=True),
            rows.owners,
            rows.numbers,
            of_row,
            kind=_TYPES[first.dtype],
            change_kind=_TYPES[change.dtype],
            sums=_TYPES[accumulation_dtype(first.dtype)],
            block=BLOCK,
        )
    return torch.segment_reduce(of_row, reduction, lengths=rows.lengths, unsafe=True).unbind()


def _table(pairs: Pairs) -> Tensor:
    """The kernels' table, of shape [tensors, FIELDS]."""
    table = np.empty((len(pairs), triton_kernels.FIELDS), dtype=np.int64)
    for line, (state, tensor) in zip(table, pairs, strict=True):
        tensors = tensor, state.anchor, state.change, state.norms
        line[:5] = *(one.data_ptr() for one in tensors), _columns(state)
    table[:, 5] = np.array([state.radius.value for state, _ in pairs]).view(np.int64)
    return torch.from_numpy(table)


@dataclass(frozen=True)
class _Rows:
    """All rows of a step's tensors in a row.

    Attributes:
        owners: the tensor that each is of, shape [rows], int32.
        numbers: which of its tensor's rows it is, likewise.
        lengths: the number of rows of each tensor, shape [tensors], int64.
    """

    owners: Tensor
    numbers: Tensor
    lengths: Tensor


@lru_cache(maxsize=64)
def _rows(lengths: tuple[int, ...], device: torch.device) -> _Rows:
    """Kept, because steps usually work on the same tensors."""
    of_tensor = torch.tensor(lengths)
    owners = torch.arange(len(lengths)).repeat_interleave(of_tensor)
    numbers = torch.arange(len(owners)) - (of_tensor.cumsum(0) - of_tensor)[owners]
    return _Rows(owners.int().to(device), numbers.int().to(device), of_tensor.to(device))
