"""AdamW's update and the projection in one pass over memory, for the tensors that allow it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftp_cl.optim.turns import Turn, finish, learn_radii, take_votes
from ftp_cl.projection.numba_backend import NumbaBackend, can_take
from ftp_cl.projection.torch_backend import to_floats

ELEMENTS_AT_ONCE = 1 << 20
"""Tensors are worked on in batches of about so many elements: what the vote has read is still in the cache then."""


@dataclass(slots=True, eq=False)
class AdamTurn:
    """A turn with what AdamW keeps of its tensor: two moments, and the number of steps as a 0-d tensor."""

    turn: Turn
    first: Tensor
    second: Tensor
    steps: Tensor

    def can_be_fused(self) -> bool:
        """Whether compiled loops can work on weights, gradient, moments, anchor and change side by side."""
        state, weights = self.turn.state, self.turn.weights
        alike = self.first.dtype == self.second.dtype == weights.dtype
        alike = alike and self.first.stride() == self.second.stride() == weights.stride()
        return alike and can_take(state, weights) and can_take(state, self.turn.gradient)


def take_over(
    turns: Sequence[Turn], group: dict[str, Any], lists: Sequence[Any], backend: NumbaBackend, mu: float
) -> None:
    """Update and project what can be fused, and leave the rest to torch, with its votes taken.

    Args:
        turns: of this step.
        group: AdamW's parameter group.
        lists: what torch's AdamW is about to update in this group: parameters, gradients, first and second moments,
            largest second moments, steps. What is done here is taken out of them.
        backend: runs the loops.
        mu: step size of the radii.
    """
    lists = [entry for entry in lists if isinstance(entry, list)]  # torch 2.4 has a flag among them
    parameters, _, firsts, seconds, _, steps = lists
    turn_of = {turn.weights: turn for turn in turns}
    mine = [
        AdamTurn(turn_of[parameter], *moments)
        for parameter, *moments in zip(parameters, firsts, seconds, steps, strict=True)
        if parameter in turn_of
    ]
    fusible: list[AdamTurn] = []
    others: list[AdamTurn] = []
    group_fits = _group_can_be_fused(group)
    for adam_turn in mine:
        (fusible if group_fits and adam_turn.can_be_fused() else others).append(adam_turn)
    take_votes([adam_turn.turn for adam_turn in others], backend)
    done = _update_and_project(fusible, group, backend, mu)
    kept = [i for i, parameter in enumerate(parameters) if parameter not in done]
    for entries in lists:
        entries[:] = [entries[i] for i in kept] if entries else []


def _group_can_be_fused(group: dict[str, Any]) -> bool:
    """Whether AdamW's settings in this parameter group are those of the compiled loop."""
    return not (group["amsgrad"] or group["maximize"] or group["capturable"] or group["differentiable"])


def _update_and_project(
    adam_turns: Sequence[AdamTurn], group: dict[str, Any], backend: NumbaBackend, mu: float
) -> set[Tensor]:
    """Vote, take AdamW's step and project, batch by batch.

    Returns:
        The parameters done; the others have a bad gradient, and their weights and moments are untouched.
    """
    done: set[Tensor] = set()
    hyper = _hyper_parameters(group)
    for batch in _batches(adam_turns):
        votes = backend.votes_of_one_kind([(a.turn.state, a.turn.gradient) for a in batch])
        for adam_turn, vote in zip(batch, votes, strict=True):
            adam_turn.turn.vote = vote
        good = set(learn_radii([a.turn for a in batch], mu))
        batch = [a for a in batch if a.turn in good]
        if not batch:
            continue
        torch._foreach_add_([a.steps for a in batch], 1)
        largest = backend.adam(
            [(a.turn.state, (a.turn.weights, a.turn.gradient, a.first, a.second)) for a in batch],
            [hyper(steps) for steps in to_floats([a.steps for a in batch])],
        )
        finish([a.turn for a in batch], largest)
        done.update(a.turn.weights for a in batch)
    return done


def _batches(adam_turns: Sequence[AdamTurn]) -> Iterator[list[AdamTurn]]:
    """Consecutive tensors of one dtype, up to ELEMENTS_AT_ONCE elements or one tensor."""
    batch: list[AdamTurn] = []
    room = ELEMENTS_AT_ONCE
    for adam_turn in adam_turns:
        weights = adam_turn.turn.weights
        if batch and (room < weights.numel() or batch[0].turn.weights.dtype != weights.dtype):
            yield batch
            batch, room = [], ELEMENTS_AT_ONCE
        batch.append(adam_turn)
        room -= weights.numel()
    if batch:
        yield batch


def _hyper_parameters(group: dict[str, Any]) -> Callable[[float], tuple[float, ...]]:
    """What `numba_kernels.adam_rows` takes, as a function of the number of steps."""
    lr, (beta1, beta2) = float(group["lr"]), (float(beta) for beta in group["betas"])
    known: dict[float, tuple[float, ...]] = {}

    def at(steps: float) -> tuple[float, ...]:
        if steps not in known:
            rate, root = lr / (1 - beta1**steps), 1 / math.sqrt(1 - beta2**steps)
            known[steps] = (1 - lr * group["weight_decay"], 1 - beta1, beta2, 1 - beta2, rate, root, group["eps"])
        return known[steps]

    return at
