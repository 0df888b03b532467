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
from ftp_cl.projection.rows import accumulation_dtype, is_captured, sent

_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

ELEMENTS = 2048
"""Of narrow rows, a program takes so many elements."""

WIDEST_ROW = 4096
"""A row of so many elements or fewer is read once, by one program, whose registers suffice for it with Adam's step."""

PIECE = 4096
"""Elements of a longer row that one program takes."""

AT_ONCE = 1024
"""Programs' results that are added up at a time."""

TABLES = 8
"""So many sets of tensors of each layout are remembered, with where they are."""


class TritonBackend:
    """See `Backend`. Triton compiles at the first use, in seconds, and keeps the code in its own cache on disk.

    A device is used once its kernels have passed a trial there.
    """

    name = "triton"

    def __init__(self) -> None:
        self._tables: dict[Hashable, dict[Hashable, _Table]] = {}

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
        return table.step(np.hstack([np.zeros((len(hyper), 1)), hyper]), rule, Scaler(), adam=True)

    def _table_of(self, updates: Sequence[Update]) -> "_Table":
        key = tuple([update.state.plan for update in updates])
        tables = self._tables.setdefault(key[0].layout, {})
        # As the last: the first is what was used least recently.
        tables[key] = tables.pop(key) if key in tables else _Table(updates)
        unused = [key for key, table in tables.items() if not table.is_captured]
        if len(unused) > TABLES:
            del tables[unused[0]]
        return tables[key]


class _Numbers:
    """The host's numbers on a device, in other memory whenever they change: a captured graph may read the old ones."""

    def __init__(self, numbers: np.ndarray, device: torch.device) -> None:
        self._host, self._here = numbers, sent(torch.from_numpy(numbers.copy()), device)
        self.captured: list[Tensor] = []

    def here(self, numbers: np.ndarray) -> Tensor:
        """These, on the device. A graph must not copy them from the host again: its kernels hold what has changed."""
        changed = numbers != self._host
        if is_captured(self._here.device):
            here = self._here
            self.captured.append(here)
            if changed.any():
                here = here.clone()
                cells = [here[place] for place in zip(*map(np.ndarray.tolist, np.nonzero(changed)), strict=True)]
                torch._foreach_zero_(cells)
                torch._foreach_add_(cells, numbers[changed].tolist())
            return here
        if changed.any():
            self._host, self._here = numbers, sent(torch.from_numpy(numbers.copy()), self._here.device)
        return self._here


@cache
def _takes(layout: Layout) -> bool:
    device, *dtypes = layout
    possible = device.type == "cuda" or triton_is_interpreted()
    return possible and set(dtypes) <= {*_TYPES, None} and works(TritonBackend, device)


class _Table:
    """Tensors of one layout: where they are, which programs take their rows, and what those find.

    Attributes:
        pointers: the kernels' table, once `point` has been called.
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
        self._pointers = _Numbers(self._host, self._device)
        widths = [2 ** max(4, int(width - 1).bit_length()) for width in columns]
        groups, spans, first = [], np.zeros((len(updates), 2), dtype=np.int32), 0
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
            groups.append((whole, at_once, width if whole else PIECE, lists, first))
            first += -(-counts.sum() // 16) * 16  # as many more as keep addresses aligned, which Triton compiles for
        self._programs, self._spans = int(first), self._here(spans)
        self._results, self._measures = torch.zeros(2, 3, first, dtype=torch.float64, device=self._device)
        self._groups = [
            (*group, (self._measures[0, first:], self._results[0, first:], self._programs)) for *group, first in groups
        ]
        self._skipped = torch.zeros(len(updates), dtype=torch.bool, device=self._device)
        hyper = np.zeros((len(updates), kernels.HYPER))
        self._hypers, self._hyper = _Numbers(hyper, self._device), self._here(hyper)

    @property
    def is_captured(self) -> bool:
        """Whether a graph reads it."""
        return bool(self._pointers.captured)

    def _here(self, numbers: np.ndarray) -> Tensor:
        return sent(torch.from_numpy(numbers.copy()), self._device)

    def point(self, *columns: Sequence[Tensor]) -> None:
        """Take the addresses of weights, gradients and, if they are given, Adam's moments and numbers of steps."""
        self._host = self._host.copy()
        self._host[:, : len(columns)] = np.array([[tensor.data_ptr() for tensor in column] for column in columns]).T
        self.pointers = self._pointers.here(self._host)

    def vote(self, rule: Rule) -> None:
        """Before the optimizer's step."""
        for group in self._groups:
            exact = rule.method == "exact"
            self._launch(group, kernels.vote, None, WHOLE=group[0], ONE_PASS=rule.one_pass, EXACT=exact)

    def step(self, hyper: np.ndarray, rule: Rule, scaler: Scaler, *, adam: bool) -> Tensor:
        """Learn the radii and project, `adam`: with Adam's own step before; returns which tensors are skipped."""
        hyper[:, 0] = rule.mu
        self._hyper = self._hypers.here(hyper)
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
        _, rows, columns, (owners, firsts), found = group
        constants |= {"ROWS": rows, "COLS": columns, "num_warps": max(4, rows * columns // 512)}
        with torch.cuda.device_of(self.pointers):
            kernel[(len(owners),)](
                self.pointers, owners, firsts, self._hyper, *found, left_out, **self._types, **constants
            )

    def _launch_for_tensors(self, kernel: Any, left_out: Tensor | None, scale: Tensor | None, **constants: Any) -> None:
        """A kernel with one program for each tensor."""
        found = self._hyper, self._results, self._programs, left_out, scale, self._skipped
        with torch.cuda.device_of(self.pointers):
            kernel[(len(self._spans),)](self.pointers, self._spans, *found, **constants, AT_ONCE=AT_ONCE)
