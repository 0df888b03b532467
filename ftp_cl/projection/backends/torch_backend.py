"""FTP's step in plain torch, on any device, without a number that is read back from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from ftp_cl.projection.backends.protocol import Rule, Scaler, Update
from ftp_cl.projection.radius import SKIPPED, VALUE, begun, clipped, learned
from ftp_cl.projection.rows import NORM_EPSILON, accumulation_dtype, as_rows, kept_dtype, same_layout, sent

ELEMENTS_AT_ONCE = 1 << 17
"""Rows of large tensors on CPU, and small tensors, are worked on in blocks of about so many elements.

Temporaries of that size stay in the cache.
"""

SMALL = 1 << 13
"""Tensors of so many elements or fewer are taken together on CPU: copying them takes less time than torch's operations
on each. On a GPU, where launches are what takes time, it is `ELEMENTS_AT_ONCE`."""


class TorchBackend:
    """See `Backend`. Temporaries are of a block's size on CPU, of a block's or one tensor's elsewhere."""

    name = "torch"

    def layout(self, update: Update) -> tuple[torch.device, Any] | None:
        """Any tensor is taken; small ones of one kind together."""
        return update.weights.device, _small_kind(update)

    def vote(self, updates: Sequence[Update], rule: Rule) -> Tensor:
        """See `Backend.vote`; votes are of shape [updates]."""
        votes, segments = self._row_votes(updates, rule), _segments_of(updates)
        if rule.method == "exact":
            radii = torch.stack([update.state.numbers for update in updates])[:, VALUE]
            active = torch.cat([update.state.norms for update in updates]) > radii[segments.tensor_of_row]
            votes = votes.where(active | ~votes.isfinite(), 0.0)
        return segments.of_tensors(votes, "sum")

    def _row_votes(self, updates: Sequence[Update], rule: Rule) -> Tensor:
        """<g_r, c'_r> / n_r(c') of all rows of these tensors."""
        return torch.cat([votes for block in _blocks(updates) for votes in _votes_of_rows(block, rule)])

    def project(self, updates: Sequence[Update], votes: Tensor, rule: Rule, scaler: Scaler) -> Tensor:
        """See `Backend.project`."""
        states = [update.state for update in updates]
        before = torch.stack([state.numbers for state in states])
        k = _each(tuple(update.k for update in updates), votes.device)
        votes = votes * _each(tuple(update.sign for update in updates), votes.device)
        if scaler.scale is not None:
            votes = votes / scaler.scale
        left_out = None if scaler.found_inf is None else scaler.found_inf > 0
        numbers = self._begun(before, rule)
        if not rule.one_pass:
            learned(numbers, votes, k, rule.mu)
        largest, bad = self._project_all(updates, numbers[:, VALUE], left_out)
        clipped(numbers, largest)
        if rule.one_pass:
            learned(numbers, votes, k, rule.mu)
        skipped = ~votes.isfinite() | bad
        numbers[:, SKIPPED] += skipped
        if left_out is not None:
            numbers, skipped = numbers.where(~left_out, before), skipped & ~left_out
        torch._foreach_copy_([state.numbers for state in states], list(numbers.unbind()))
        return skipped

    def _begun(self, before: Tensor, rule: Rule) -> Tensor:
        """The tensors' numbers with a step more."""
        return begun(before, rule.first_radius)

    def _project_all(self, updates: Sequence[Update], radii: Tensor, left_out: Tensor | None) -> tuple[Tensor, Tensor]:
        """The largest finite norm of each tensor, 0 for none, and whether it has others."""
        blocks, finite = _blocks(updates), []
        for block, own_radii in zip(blocks, radii.split([len(block) for block in blocks]), strict=True):
            if len(block) > 1:
                finite.append(_project_together(block, own_radii, left_out))
            else:
                finite += place_tensor(block[0], own_radii[0], left_out)
        norms = torch.cat([update.state.norms for update in updates]).where(torch.cat(finite), 0.0)
        segments = _segments_of(updates)
        return segments.of_tensors(norms, "max"), segments.of_tensors(norms, "min") == 0


@lru_cache(maxsize=64)
def _each(values: tuple[float, ...], device: torch.device) -> Tensor | float:
    """One number for each tensor, on their device; a plain number if all are the same."""
    if len(set(values)) == 1:
        return values[0]
    return sent(torch.tensor(values, dtype=kept_dtype(device), device="cpu"), device)


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _small_kind(update: Update) -> tuple[Any, ...] | None:
    """What small tensors must have in common to be put in a row; None: this one is not to be."""
    tensor, state = update.weights, update.state
    if tensor.numel() > (SMALL if tensor.is_cpu else ELEMENTS_AT_ONCE) or not _has_segments(tensor.device):
        return None
    if tensor.shape != state.anchor.shape or not (tensor.is_contiguous() and state.anchor.is_contiguous()):
        return None
    change = None if state.change is None else state.change.dtype
    return tensor.dtype, update.gradient.dtype, state.anchor.dtype, state.anchor.device, change


def _blocks(updates: Sequence[Update]) -> list[Sequence[Update]]:
    """Small tensors in groups of `ELEMENTS_AT_ONCE`, others one by one."""
    if _small_kind(updates[0]) is None:
        return [[update] for update in updates]
    blocks: list[Sequence[Update]] = []
    start = filled = 0
    for end, update in enumerate(updates, 1):
        filled += update.weights.numel()
        if filled >= ELEMENTS_AT_ONCE or end == len(updates):
            blocks.append(updates[start:end])
            start, filled = end, 0
    return blocks


class _Matrix:
    """The rows of one tensor, as a matrix."""

    def sums(self, values: Tensor) -> Tensor:
        """Of each row; the sum of a temporary takes half the time of torch.linalg.vector_norm on CPU."""
        return values.sum(dim=1, dtype=accumulation_dtype(values.dtype))

    def spread(self, of_rows: Tensor) -> Tensor:
        """One number a row, to be combined with all its elements."""
        return of_rows.unsqueeze(1)


@dataclass(frozen=True)
class _Segments:
    """The rows of several tensors in a row, each with its elements one after the other.

    Attributes:
        columns: elements of each row, shape [rows].
        rows: rows of each tensor, shape [tensors].
        counts: the same, on the host.
        tensor_of_row: shape [rows].
        row_of_element: shape [elements]; empty unless the elements are taken together.
    """

    columns: Tensor
    rows: Tensor
    counts: tuple[int, ...]
    tensor_of_row: Tensor
    row_of_element: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """Of each row, in float64, because they are taken one number after the other."""
        return torch.segment_reduce(values.double(), "sum", lengths=self.columns, unsafe=True)

    def spread(self, of_rows: Tensor) -> Tensor:
        """One number a row, once for each of its elements."""
        return of_rows.index_select(0, self.row_of_element)

    def of_tensors(self, of_rows: Tensor, reduction: str) -> Tensor:
        """One number for each tensor, in float64 where the device has it."""
        if _has_segments(of_rows.device):
            return torch.segment_reduce(of_rows.double(), reduction, lengths=self.rows, unsafe=True)
        return torch.stack([getattr(rows, reduction)() for rows in of_rows.split(self.counts)])


def _has_segments(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")


def _segments_of(updates: Sequence[Update], elements: bool = False) -> _Segments:
    sizes = [(update.state.norms.numel(), update.state.anchor.numel() if elements else 0) for update in updates]
    return _segments(tuple(sizes), updates[0].weights.device, elements)


@lru_cache(maxsize=64)
def _segments(sizes: tuple[tuple[int, int], ...], device: torch.device, elements: bool) -> _Segments:
    """Kept, because steps usually work on the same tensors; `sizes` are rows and elements of each."""
    rows, numbers = (torch.tensor(each, device="cpu") for each in zip(*sizes, strict=True))
    tensor_of_row = torch.arange(len(sizes), device="cpu").repeat_interleave(rows)
    columns = (numbers // rows.clamp(min=1))[tensor_of_row]
    row_of_element = torch.arange(len(columns), device="cpu").repeat_interleave(columns if elements else columns * 0)
    tensors = (sent(each, device) for each in (columns, rows, tensor_of_row, row_of_element.int()))
    columns, rows, tensor_of_row, row_of_element = tensors
    return _Segments(columns, rows, tuple(count for count, _ in sizes), tensor_of_row, row_of_element)


# ---- the two halves of a step ----------------------------------------------------------------------------------------


def _votes_of_rows(block: Sequence[Update], rule: Rule) -> list[Tensor]:
    """<g_r, c'_r> / n_r(c') of all rows of a block, in pieces."""
    if len(block) == 1:
        return [products / norms for products, norms in _terms(block[0], rule)]
    states = [update.state for update in block]
    gradient = _flatten_dense_tensors([update.gradient for update in block])
    if rule.one_pass:
        anchor = _flatten_dense_tensors([state.anchor for state in states]).to(gradient.device)
        given = _flatten_dense_tensors([update.weights for update in block]), anchor
    else:
        change = _flatten_dense_tensors([state.change for state in states])
        given = change, torch.cat([state.norms for state in states])
    products, norms = _row_terms(_segments_of(block, elements=True), rule, gradient, *given)
    return [products / norms]


def terms_of(update: Update, rule: Rule) -> tuple[Tensor, Tensor]:
    """<g_r, c'_r> and n_r(c') of all rows of a tensor; in one pass, with W - W0 for c'."""
    products, norms = (torch.cat(pieces) for pieces in zip(*_terms(update, rule), strict=True))
    return products, norms


def _terms(update: Update, rule: Rule) -> list[tuple[Tensor, Tensor]]:
    state, here = update.state, update.weights.device
    tensors = [update.weights, state.anchor.to(here)] if rule.one_pass else [state.change]
    matrices = [as_rows(_dense(state.covered(tensor), state.anchor)) for tensor in (update.gradient, *tensors)]
    pieces = _pieces(*matrices) if rule.one_pass else _pieces(*matrices, state.norms)
    return [_row_terms(_Matrix(), rule, *piece) for piece in pieces]


def _row_terms(rows: Any, rule: Rule, gradient: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """`given` are the previous change and its norms, or in one pass the weights and the anchor."""
    if rule.one_pass:
        direction = given[0] - given[1]
        norms = rows.sums(direction.abs()) + NORM_EPSILON
    else:
        direction, norms = given
    return rows.sums(torch.mul(gradient.to(accumulation_dtype(gradient.dtype)), direction)), norms


def place_tensor(update: Update, radius: Tensor, left_out: Tensor | None, norms: Tensor | None = None) -> list[Tensor]:
    """Project one tensor; returns of its rows, in pieces, whether their norms are finite.

    Args:
        update: the tensor.
        radius: 0-d.
        left_out: 0-d; the optimizer has left the step out.
        norms: of the rows, if they are known, because other processes have parts of them.
    """
    state = update.state
    weights, anchor = state.covered(update.weights), state.anchor.to(radius.device)
    dense = _dense(weights, anchor)
    matrices = [as_rows(dense), as_rows(anchor), state.norms]
    if state.change is not None:
        matrices.append(as_rows(state.change))
    finite = [
        _place(_Matrix(), w, a, c[0] if c else None, n, radius, left_out, norms)
        for w, a, n, *c in (_pieces(*matrices) if norms is None else [matrices])
    ]
    if dense is not weights:
        weights.copy_(dense)
    return finite


def _project_together(block: Sequence[Update], radii: Tensor, left_out: Tensor | None) -> Tensor:
    """Project small tensors of one kind."""
    states = [update.state for update in block]
    segments = _segments_of(block, elements=True)
    weights, norms = [update.weights for update in block], [state.norms for state in states]
    changes = [state.change for state in states if state.change is not None]
    w, n = _flatten_dense_tensors(weights), torch.cat(norms)
    a = _flatten_dense_tensors([state.anchor for state in states]).to(w.device)
    c = _flatten_dense_tensors(changes) if changes else None
    finite = _place(segments, w, a, c, n, radii[segments.tensor_of_row], left_out)
    torch._foreach_copy_(weights, _unflatten_dense_tensors(w, weights))
    if c is not None:
        torch._foreach_copy_(changes, _unflatten_dense_tensors(c, changes))
    torch._foreach_copy_(norms, n.split(segments.counts))
    return finite


def _place(
    rows: "_Matrix | _Segments",
    w: Tensor,
    a: Tensor,
    c: Tensor | None,
    n: Tensor,
    radii: Tensor,
    left_out: Tensor | None,
    norms: Tensor | None = None,
) -> Tensor:
    """Project weights w around the anchor a, and keep their change in c and its norms in n.

    Returns:
        Whether the norm of each row is finite. Other rows stay as they are, and all do where the step is `left_out`.
    """
    direct = c is not None and c.dtype == w.dtype and left_out is None
    change = torch.sub(w, a, out=c) if direct else torch.sub(w, a)
    norms = rows.sums(change.abs()).add_(NORM_EPSILON) if norms is None else norms
    finite = norms.isfinite()
    ratios = rows.spread(torch.div(radii, norms).clamp_(max=1.0).to(accumulation_dtype(w.dtype)))
    if left_out is None and finite.is_cpu and finite.numpy().all():  # looking costs nothing there
        torch.addcmul(a, change, ratios, out=w)
    else:
        usable = finite if left_out is None else finite & ~left_out
        w.copy_(torch.addcmul(a, change, ratios).where(rows.spread(usable), w))
        change, norms = change.where(rows.spread(finite), 0.0), norms.where(finite, NORM_EPSILON)
        if left_out is not None:
            change, norms = change if c is None else c.where(left_out, change), n.where(left_out, norms)
    n.copy_(norms)
    if c is not None and change is not c:
        c.copy_(change)
    return finite


def _dense(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor, or a copy of it in the layout of another one, whose rows are dense."""
    if same_layout(tensor, like):
        return tensor
    return torch.empty_like(like, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _pieces(first: Tensor, *others: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """The same rows of each tensor, piece by piece; all at once where memory traffic is not what limits."""
    if first.device.type != "cpu" or first.numel() <= ELEMENTS_AT_ONCE:
        return [(first, *others)]
    rows = max(1, ELEMENTS_AT_ONCE * len(first) // first.numel())
    return zip(*(tensor.split(rows) for tensor in (first, *others)), strict=True)
