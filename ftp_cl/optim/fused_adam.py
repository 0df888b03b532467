"""AdamW's update and the projection in one pass over memory, for the tensors that allow it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftp_cl.optim.turns import Turn, finish, learn_radii, take_votes
from ftp_cl.projection.numba_backend import Kind, NumbaBackend, kind_of
from ftp_cl.projection.torch_backend import to_floats


@dataclass(slots=True, eq=False)
class AdamTurn:
    """A turn with what AdamW keeps of its tensor: two moments, and the number of steps as a 0-d tensor."""

    turn: Turn
    first: Tensor
    second: Tensor
    steps: Tensor

    def kind(self) -> Kind | None:
        """See `kind_of`: here moments, too, have the dtype and layout of the weights."""
        state, weights = self.turn.state, self.turn.weights
        alike = self.first.dtype == self.second.dtype == weights.dtype
        alike = alike and self.first.stride() == self.second.stride() == weights.stride()
        fits = alike and kind_of(state, self.turn.gradient) is not None
        return kind_of(state, weights) if fits else None


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
    turn_of = {id(turn.weights): turn for turn in turns}
    kinds: dict[Kind | None, list[AdamTurn]] = {}
    group_fits = _group_can_be_fused(group)
    for parameter, *moments in zip(parameters, firsts, seconds, steps, strict=True):
        turn = turn_of.get(id(parameter))
        if turn is not None:
            adam_turn = AdamTurn(turn, *moments)
            kinds.setdefault(adam_turn.kind() if group_fits else None, []).append(adam_turn)
    take_votes([adam_turn.turn for adam_turn in kinds.pop(None, [])], backend)
    done: set[int] = set()
    for adam_turns in kinds.values():
        done |= _update_and_project(adam_turns, group, backend, mu)
    kept = [i for i, parameter in enumerate(parameters) if id(parameter) not in done]
    for entries in lists:
        entries[:] = [entries[i] for i in kept] if entries else []


def _group_can_be_fused(group: dict[str, Any]) -> bool:
    """Whether AdamW's settings in this parameter group are those of the compiled loop."""
    return not (group["amsgrad"] or group["maximize"] or group["capturable"] or group["differentiable"])


def _update_and_project(
    adam_turns: Sequence[AdamTurn], group: dict[str, Any], backend: NumbaBackend, mu: float
) -> set[int]:
    """Vote, take AdamW's step and project, for tensors of one kind.

    Returns:
        The ids of the parameters done; the others have a bad gradient, and their weights and moments are untouched.
    """
    votes = backend.votes_of_one_kind([(a.turn.state, a.turn.gradient) for a in adam_turns])
    for adam_turn, vote in zip(adam_turns, votes, strict=True):
        adam_turn.turn.vote = vote
    learn_radii([a.turn for a in adam_turns], mu)
    good = [a for a in adam_turns if not a.turn.skipped]
    if not good:
        return set()
    hyper = _hyper_parameters(group)
    torch._foreach_add_([a.steps for a in good], 1)
    largest = backend.adam(
        [(a.turn.state, (a.turn.weights, a.turn.gradient, a.first, a.second)) for a in good],
        [hyper(steps) for steps in to_floats([a.steps for a in good])],
    )
    finish([a.turn for a in good], largest)
    return {id(a.turn.weights) for a in good}


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
