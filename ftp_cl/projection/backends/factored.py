"""FTP's step on adapters: the change is a product of small factors, and rows of one factor scale rows of the change.

With dW = s B A, the projection of row r onto its ball scales row r of B. The vote <dL/d(dW)_r, dW_r> is
<dL/dB_r, B_r>, because dL/dB = s dL/d(dW) A^T. What is left to compute of the size of dW is the length of its rows, in
blocks.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ftp_cl.projection.backends.protocol import Factored, Rule, Update
from ftp_cl.projection.backends.torch_backend import ELEMENTS_AT_ONCE, TorchBackend, _segments_of
from ftp_cl.projection.radius import STEPS, VALUE, begun
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, kept_dtype, sent

ON_GPU_AT_ONCE = 1 << 22
"""Elements of dW in one block on a GPU, where launches are what takes time; 16 MB in float32."""


class FactoredBackend(TorchBackend):
    """See `Backend`."""

    name = "factored"

    def layout(self, update: Update) -> tuple[torch.device, Any] | None:
        """Only adapters, those of one group of processes together."""
        if update.factored is None:
            return None
        return update.weights.device, None if update.sharding is None else update.sharding.group

    def vote(self, updates: Sequence[Update], rule: Rule) -> Tensor:
        """See `Backend.vote`."""
        return _over_processes(super().vote(updates, rule), updates, "SUM")

    def _row_votes(self, updates: Sequence[Update], rule: Rule) -> Tensor:
        norms = torch.cat([update.state.norms for update in updates])
        if rule.one_pass:
            return torch.cat([_products(update.gradient, update.weights) for update in updates]) / norms_of(updates)
        # The last projection left B_r as min(1, gamma / n_r) of what it was. Rows without a change have no vote, nor
        # have those whose change was not finite, which are kept as such.
        changed, radii = norms > NORM_EPSILON, torch.stack([update.state.numbers[VALUE] for update in updates])
        products = [
            _products(update.gradient, update.weights.where(rows.unsqueeze(1), 0.0))
            for update, rows in zip(updates, changed.split([len(update.weights) for update in updates]), strict=True)
        ]
        return torch.cat(products) / torch.minimum(norms, radii[_segments_of(updates).tensor_of_row])

    def _begun(self, before: Tensor, rule: Rule) -> Tensor:
        numbers = begun(before, rule.first_radius)
        first = numbers[:, STEPS] == 1
        numbers[:, VALUE] = torch.where(first, torch.maximum(numbers[:, VALUE], before[:, VALUE]), numbers[:, VALUE])
        return numbers

    def _project_all(self, updates: Sequence[Update], radii: Tensor, left_out: Tensor | None) -> tuple[Tensor, Tensor]:
        norms, segments = norms_of(updates), _segments_of(updates)
        finite = norms.isfinite()
        kept = finite if left_out is None else finite & ~left_out
        ratios = (radii[segments.tensor_of_row] / norms).clamp_(max=1.0).where(kept, 1.0)
        for update, own in zip(updates, ratios.split(segments.counts), strict=True):
            update.weights.mul_(own.unsqueeze(1).to(accumulation_dtype(update.weights.dtype)))
        largest = segments.of_tensors(norms.where(finite, 0.0), "max").clamp_(min=0.0)  # of no rows it is -inf
        bad = segments.of_tensors((~finite).to(norms.dtype), "sum")
        stored = [update.state.norms for update in updates]
        norms = norms.where(finite, NORM_EPSILON)
        if left_out is not None:
            norms = norms.where(~left_out, torch.cat(stored))
        torch._foreach_copy_(stored, list(norms.split(segments.counts)))
        largest, bad = _over_processes(torch.stack([largest, bad]), updates, "MAX")
        return largest, bad > 0


def _over_processes(values: Tensor, updates: Sequence[Update], operation: str) -> Tensor:
    sharding = updates[0].sharding
    if sharding is not None:
        dist.all_reduce(values, op=getattr(dist.ReduceOp, operation), group=sharding.group)
    return values


def _products(left: Tensor, right: Tensor) -> Tensor:
    """The inner product of each row."""
    dtype = accumulation_dtype(torch.promote_types(left.dtype, right.dtype))
    return torch.mul(left.to(dtype), right).sum(dim=1)


def norms_of(updates: Sequence[Update]) -> Tensor:
    """n_r(dW) of all rows of these adapters, one after the other."""
    changes = [update.factored for update in updates if update.factored is not None]
    return torch.cat(row_norms_of(changes)).to(kept_dtype(updates[0].weights.device))


@torch.no_grad()
def row_norms_of(changes: Sequence[Factored]) -> list[Tensor]:
    """n_r(dW) = |scale| * sum |dW_r| + 1e-8 of each change, shape [rows]; those of one shape are computed together."""
    alike: dict[Any, list[int]] = defaultdict(list)
    pairs = [change.pairs() for change in changes]
    for index, factors in enumerate(pairs):
        alike[tuple((left.shape, right.shape, right.device) for left, right in factors)].append(index)
    norms: dict[int, Tensor] = {}
    for indices in alike.values():
        dtypes = (tensor.dtype for index in indices for pair in pairs[index] for tensor in pair)
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        stacked = [
            tuple(torch.cat([factor.to(dtype) for factor in side]) for side in zip(*product, strict=True))
            for product in zip(*(pairs[index] for index in indices), strict=True)
        ]
        scales = _column(tuple(abs(changes[index].scale) for index in indices), dtype, stacked[0][0].device)
        with torch.autocast(stacked[0][0].device.type, enabled=False):  # it would multiply in half precision
            lengths = _lengths(stacked)
        lengths = lengths.view(len(indices), -1).mul_(scales).add_(NORM_EPSILON)
        norms.update(zip(indices, lengths.unbind(), strict=True))
    return [norms[index] for index in range(len(changes))]


@lru_cache(maxsize=64)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept, because steps usually work on the same adapters."""
    return sent(torch.tensor(values, dtype=dtype, device="cpu"), device).unsqueeze(1)


def _lengths(pairs: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """Sums of the absolute values of the rows of the products' product, shape [groups, rows]."""
    left, right = pairs[0]
    lengths = left.new_empty(left.shape[:2])
    for groups, rows in _blocks(len(left), left.shape[1], right.shape[2], left.is_cpu):
        block = torch.bmm(left[groups, rows], right[groups])
        for other_left, other_right in pairs[1:]:
            block.mul_(torch.bmm(other_left[groups, rows], other_right[groups]))
        torch.sum(block.abs_(), dim=2, out=lengths[groups, rows])
    return lengths


def _blocks(groups: int, rows: int, columns: int, on_cpu: bool) -> Iterator[tuple[slice, slice]]:
    """Slices of groups and of rows whose products have about as many elements as are worked on at once."""
    at_once = max(1, (ELEMENTS_AT_ONCE if on_cpu else ON_GPU_AT_ONCE) // max(1, columns))
    many, few = max(1, at_once // max(1, rows)), min(rows, at_once)
    for first in range(0, groups, many):
        for start in range(0, rows, max(1, few)):
            yield slice(first, first + many), slice(start, start + few)
