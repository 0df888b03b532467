"""FTP's step on tensors that are spread over processes, in plain torch, with three small sums over them at most.

Rows of matrices are whole in one process, so that only votes and largest norms are combined; a tensor of one dimension
is a single row, whose norm is summed before it is projected. A process may have no rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ftp_cl.projection.backends.protocol import Rule, Sharding, Update
from ftp_cl.projection.backends.torch_backend import TorchBackend, place_tensor, terms_of
from ftp_cl.projection.radius import VALUE
from ftp_cl.projection.rows import NORM_EPSILON, kept_dtype, sent


class ShardedBackend(TorchBackend):
    """See `Backend`. The number of collectives does not depend on that of the tensors."""

    name = "sharded"

    def layout(self, update: Update) -> tuple[torch.device, Any] | None:
        """Only tensors that are spread over processes, those of one group together."""
        sharding = update.sharding
        return None if sharding is None else (update.weights.device, sharding.group)

    def vote(self, updates: Sequence[Update], rule: Rule) -> Tensor:
        """See `Backend.vote`."""
        sums = _nothing(updates, 2)  # of votes; of a row that is spread in one pass, of products and of lengths
        for update, line in zip(updates, sums, strict=True):
            if not update.weights.numel():
                continue
            products, norms = terms_of(update, rule)
            if rule.one_pass and _sharding(update).spread:
                line.copy_(torch.stack([products.sum(), (norms - NORM_EPSILON).sum()]))
                continue
            votes = products / norms
            if rule.method == "exact":
                votes = votes.where((norms > update.state.numbers[VALUE]) | ~votes.isfinite(), 0.0)
            line[0] = votes.sum()
        dist.all_reduce(sums, group=_sharding(updates[0]).group)
        if not rule.one_pass:
            return sums[:, 0]
        spread = sent(torch.tensor([_sharding(update).spread for update in updates], device="cpu"), sums.device)
        return sums[:, 0] / (sums[:, 1] + NORM_EPSILON).where(spread, 1.0)

    def _project_all(self, updates: Sequence[Update], radii: Tensor, left_out: Tensor | None) -> tuple[Tensor, Tensor]:
        lengths, group = _nothing(updates, 1), _sharding(updates[0]).group
        spread = [i for i, update in enumerate(updates) if _sharding(update).spread]
        for i in spread:
            weights, state = updates[i].weights, updates[i].state
            lengths[i] = (weights - state.anchor.to(weights.device)).abs().sum(dtype=lengths.dtype)
        if spread:
            dist.all_reduce(lengths, group=group)
        found = _nothing(updates, 2)  # the largest norm, and whether one is not finite
        for i, update in enumerate(updates):
            norms = lengths[i] + NORM_EPSILON if i in spread else None
            if update.weights.numel():
                finite = torch.cat(place_tensor(update, radii[i], left_out, norms))
                found[i, 0] = update.state.norms.where(finite, 0.0).max()
                found[i, 1] = ~finite.all()
            elif norms is not None:
                update.state.norms.copy_(norms.where(norms.isfinite(), NORM_EPSILON))
        dist.all_reduce(found, op=dist.ReduceOp.MAX, group=group)
        return found[:, 0], found[:, 1] > 0


def _sharding(update: Update) -> Sharding:
    assert update.sharding is not None
    return update.sharding


def _nothing(updates: Sequence[Update], columns: int) -> Tensor:
    device = updates[0].weights.device
    return torch.zeros(len(updates), columns, dtype=kept_dtype(device), device=device)
