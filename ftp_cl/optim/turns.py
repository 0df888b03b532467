"""One step of FTP, in its three parts: vote before the weights change, learn the radii, project.

A turn is one tensor's passage through them, in the hooks of `FTP` around an optimizer's step; or, together with Adam's
own step, before it (`fused_adam`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.projection import Backend, Radius, TensorState, exact_vote
from ftp_cl.projection.torch_backend import to_floats


@dataclass(slots=True, eq=False)
class Turn:
    """One tensor in one optimizer step.

    Attributes:
        name: canonical name of the parameter.
        weights: the parameter.
        gradient: that of this step; some optimizers overwrite it once the vote is taken.
        state: anchor, previous change and radius.
        group: the optimizer's parameter group.
        k: factor on votes that shrink the radius.
        vote: d, once taken; its value may still be computing on a device.
        before: the radius before this step, once learned.
        skipped: something was not finite, and the tensor's state is as before the step.
        finished: the weights are projected, or left as they are for good.
    """

    name: str
    weights: nn.Parameter
    gradient: Tensor
    state: TensorState
    group: dict[str, Any]
    k: float
    vote: Tensor | float | None = None
    before: Radius | None = None
    skipped: bool = False
    finished: bool = False


def take_votes(turns: Sequence[Turn], backend: Backend, *, exact: bool = False) -> None:
    """Read the gradients, before the optimizer's step; `exact`: rows inside their ball have no vote."""
    votes: Sequence[Tensor | float]
    if exact:
        votes = [exact_vote(turn.state, turn.gradient) for turn in turns]
    else:
        votes = backend.votes([(turn.state, turn.gradient) for turn in turns])
    for turn, vote in zip(turns, votes, strict=True):
        turn.vote = vote


def learn_radii(turns: Sequence[Turn], mu: float, scale: float = 1.0) -> list[Turn]:
    """Move each radius along its vote; returns the turns to be projected, all but those with a bad gradient.

    Args:
        turns: their votes are taken.
        mu: step size.
        scale: factor that a GradScaler put on the gradients, if the optimizer takes it off within its step.
    """
    votes = to_floats([turn.vote for turn in turns if turn.vote is not None])
    good = []
    for turn, vote in zip(turns, votes, strict=True):
        # A finite vote has finite terms; only otherwise look closer, because a sum of large numbers overflows too.
        if not math.isfinite(vote):
            if not torch.isfinite(turn.gradient).all():
                turn.skipped = turn.finished = True
                continue
            vote = 0.0
        turn.before = turn.state.radius
        vote = -vote if turn.group.get("maximize") else vote  # an optimizer that climbs
        turn.state.radius = turn.before.after(vote / scale, k=turn.k, mu=mu)
        good.append(turn)
    return good


def project(turns: Sequence[Turn], backend: Backend) -> None:
    """Pull the weights back into their balls, after the optimizer's step."""
    finish(turns, backend.project([(turn.state, turn.weights) for turn in turns]))


def finish(turns: Sequence[Turn], largest_rows: Sequence[float]) -> None:
    """Bound the radii by the largest row that each projection met; NaN: a weight was not finite."""
    for turn, largest in zip(turns, largest_rows, strict=True):
        turn.finished = True
        if largest == largest:
            turn.state.radius.clip(largest)
        elif turn.before is not None:
            turn.state.radius = turn.before
            turn.skipped = True
