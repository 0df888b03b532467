"""FTP's step on a GPU by Triton kernels: a few launches for all tensors of one layout, none of which the host awaits.

Tensors of other layouts, those on CPU among them, go through plain torch.
"""

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from ftp_cl.projection.backends import triton_kernels as kernels
from ftp_cl.projection.backends.choose import triton_is_interpreted
from ftp_cl.projection.backends.plan import Layout, layout_of, plan_of
from ftp_cl.projection.backends.protocol import Rule, Scaler, Update
from ftp_cl.projection.backends.trial import works
from ftp_cl.projection.rows import accumulation_dtype

_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

ELEMENTS = 2048
"""Of narrow rows, a program takes so many elements."""

WIDEST_ROW = 8192
"""A row of so many elements or fewer is read once, by one program."""

PIECE = 4096
"""Elements of a longer row that one program takes."""

AT_ONCE = 256
"""Programs' results that are added up at a time."""

TABLES = 8
"""So many sets of tensors are remembered, with where they are."""


class TritonBackend:
    """See `Backend`. Triton compiles at the first use, in seconds, and keeps the code in its own cache on disk.

    A device is used once its kernels have passed a trial there.
    """

    name = "triton"

    def __init__(self) -> None:
        self._tables: dict[Hashable, _Table] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_tables": {}}

    def layout(self, update: Update, *others: Tensor) -> Layout | None:
        """See `layout_of`."""
        layout = layout_of(update, *others)
        return layout if layout is not None and _takes(layout) else None

    def vote(self, updates: Sequence[Update], rule: Rule) -> "_Table":
        """See `Backend.vote`."""
        table = self._table_of(updates)
        table.point([update.weights for update in updates], [update.gradient for update in updates])
        table.vote(rule)
        return table

    def project(self, updates: Sequence[Update], votes: "_Table", rule: Rule, scaler: Scaler) -> Tensor:
        """See `Backend.project`."""
        hyper = np.zeros((len(updates), kernels.HYPER))
        hyper[:, 1:3] = [(update.k, update.sign) for update in updates]
        return votes.step(hyper, rule, scaler, adam=False)

    def adam(
        self, updates: Sequence[Update], columns: Sequence[Sequence[Tensor]], hyper: np.ndarray, rule: Rule
    ) -> Tensor:
        """See `NumbaBackend.adam`. Numbers of steps are where the weights are."""
        table = self._table_of(updates)
        table.point([update.weights for update in updates], [update.gradient for update in updates], *columns)
        if not rule.one_pass:
            table.vote(rule)
        return table.step(np.insert(hyper, 0, 0.0, axis=1), rule, Scaler(), adam=True)

    def _table_of(self, updates: Sequence[Update]) -> "_Table":
        key = tuple([update.state.plan for update in updates])
        if key not in self._tables:
            if len(self._tables) == TABLES:
                del self._tables[next(iter(self._tables))]
            self._tables[key] = _Table(updates)
        return self._tables[key]


@cache
def _takes(layout: Layout) -> bool:
    device, *dtypes = layout
    possible = device.type == "cuda" or triton_is_interpreted()
    return possible and set(dtypes) <= {*_TYPES, None} and works(TritonBackend, device)


class _Table:
    """Tensors of one layout: where they are, which programs take their rows, and what those find.

    Attributes:
        pointers: the kernels' table.
    """

    def __init__(self, updates: Sequence[Update]) -> None:
        plans = [plan_of(update.state) for update in updates]
        assert plans[0].layout is not None
        self._device, dtype, anchor, change = plans[0].layout
        self._types = {
            "W": _TYPES[dtype],
            "A": _TYPES[anchor],
            "C": None if change is None else _TYPES[change],
            "SUMS": _TYPES[accumulation_dtype(dtype)],
        }
        addresses = np.array([[plan.addresses[i] for i in (3, 2, 1, 0)] for plan in plans])
        rows, columns = (np.array(sizes) for sizes in zip(*((plan.rows, plan.columns) for plan in plans), strict=True))
        self._host = np.zeros((len(updates), kernels.FIELDS), dtype=np.int64)
        self._host[:, 5:9], self._host[:, 9], self._host[:, 10] = addresses, columns, rows
        self.pointers = self._pointers = self._here(self._host)
        widths = [2 ** max(4, int(width - 1).bit_length()) for width in columns]
        self._groups, spans, first = [], np.zeros((len(updates), 2), dtype=np.int32), 0
        for width in sorted({min(width, 2 * WIDEST_ROW) for width in widths}, reverse=True):
            members = [i for i, own in enumerate(widths) if min(own, 2 * WIDEST_ROW) == width]
            pieces = -(-columns[members] // PIECE) if width > WIDEST_ROW else 1
            at_once = max(1, ELEMENTS // width)
            counts = -(-rows[members] // at_once) * pieces
            starts = np.cumsum(counts) - counts
            spans[members] = first + np.stack([starts, starts + counts], axis=1)
            owners = np.repeat(members, counts)
            firsts = (np.arange(counts.sum()) - np.repeat(starts, counts)) * at_once
            lists = [self._here(each.astype(np.int32)) for each in (owners, firsts)]
            whole = width <= WIDEST_ROW
            self._groups.append((whole, at_once, width if whole else PIECE, first, lists))
            first += -(-counts.sum() // 16) * 16  # as many more as keep addresses aligned, which Triton compiles for
        self._programs, self._spans = int(first), self._here(spans)
        self._results, self._measures = torch.zeros(2, 3, first, dtype=torch.float64, device=self._device)
        self._skipped = torch.zeros(len(updates), dtype=torch.bool, device=self._device)
        self._hyper_host = np.zeros((len(updates), kernels.HYPER))
        self._hyper = self._here(self._hyper_host)

    def _here(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.copy()).to(self._device, non_blocking=True)

    def point(self, *columns: Sequence[Tensor]) -> None:
        """Take the addresses of weights, gradients and, if they are given, Adam's moments and numbers of steps."""
        new = self._host.copy()
        new[:, : len(columns)] = np.array([[tensor.data_ptr() for tensor in column] for column in columns]).T
        self.pointers = self._pointers
        if self._device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            # A graph must not copy from the host again. Its own table is made of numbers that its kernels hold.
            self.pointers = self._pointers.clone()
            cells = list(self.pointers[:, : len(columns)].flatten().unbind())
            torch._foreach_zero_(cells)
            torch._foreach_add_(cells, new[:, : len(columns)].flatten().tolist())
        elif not np.array_equal(new, self._host):
            self._host = new
            self._pointers.copy_(torch.from_numpy(new), non_blocking=True)

    def vote(self, rule: Rule) -> None:
        """Before the optimizer's step."""
        for group in self._groups:
            exact = rule.method == "exact"
            self._launch(group, kernels.vote, None, WHOLE=group[0], ONE_PASS=rule.one_pass, EXACT=exact)

    def step(self, hyper: np.ndarray, rule: Rule, scaler: Scaler, *, adam: bool) -> Tensor:
        """Learn the radii and project, `adam`: with Adam's own step before; returns which tensors are skipped."""
        hyper[:, 0] = rule.mu
        if not np.array_equal(hyper, self._hyper_host):
            self._hyper_host = hyper
            self._hyper.copy_(torch.from_numpy(hyper), non_blocking=True)
        left_out, one_pass = scaler.found_inf, rule.one_pass
        if not one_pass:
            self._launch_for_tensors(kernels.start, left_out, scaler.scale)
        for group in self._groups:
            if group[0]:
                self._launch(group, kernels.step, left_out, ONE_PASS=one_pass, ADAM=adam)
            else:
                self._launch(group, kernels.measure, left_out, ONE_PASS=one_pass, ADAM=adam)
                self._launch(group, kernels.place, left_out, ONE_PASS=one_pass, AT_ONCE=AT_ONCE)
        self._launch_for_tensors(kernels.finish, left_out, scaler.scale, ONE_PASS=one_pass, ADAM=adam)
        return self._skipped

    def _launch(self, group: Any, kernel: Any, left_out: Tensor | None, **constants: Any) -> None:
        """A kernel for the programs of a group."""
        _, rows, columns, first, (owners, firsts) = group
        found = self._hyper, self._measures[0, first:], self._results[0, first:], self._programs, left_out
        constants |= {"ROWS": rows, "COLS": columns, "num_warps": max(4, rows * columns // 512)}
        with torch.cuda.device_of(self.pointers):
            kernel[(len(owners),)](self.pointers, owners, firsts, *found, **self._types, **constants)

    def _launch_for_tensors(self, kernel: Any, left_out: Tensor | None, scale: Tensor | None, **constants: Any) -> None:
        """A kernel with one program for each tensor."""
        found = self._hyper, self._results, self._programs, left_out, scale, self._skipped
        with torch.cuda.device_of(self.pointers):
            kernel[(len(self._spans),)](self.pointers, self._spans, *found, **constants, AT_ONCE=AT_ONCE)
