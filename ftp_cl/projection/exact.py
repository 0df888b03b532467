"""The exact derivative of the loss by a tensor's radius, as a vote; docs/hyper_optimizer.md derives it."""

import torch
from torch import Tensor

from ftp_cl.projection.rows import row_dots
from ftp_cl.projection.tensor_state import TensorState


def exact_vote(state: TensorState, gradient: Tensor) -> Tensor:
    """The sum over active rows of <g_r, c'_r> / n_r(c'), 0-d.

    Active are the rows that the previous step's projection has shortened. The others do not move with the radius, so
    the loss has no derivative through them; the published vote counts them too.

    Args:
        state: anchor, change and radius of the previous step.
        gradient: of this step, taken at the weights which that projection left; grown rows may follow.
    """
    votes = row_dots(state.covered(gradient), state.change) / state.norms
    return torch.where(state.norms > state.radius.value, votes, 0.0).sum()
