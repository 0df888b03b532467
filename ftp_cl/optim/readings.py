"""Radii and distances of what is projected, as plain numbers."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ftp_cl.optim.sharding import spread_like, whole
from ftp_cl.optim.states import States
from ftp_cl.optim.tracked import Tracked
from ftp_cl.projection import FactorState, TensorState
from ftp_cl.projection.radius import STEPS, VALUE
from ftp_cl.projection.rows import row_norms


def active(
    tracked: Tracked, states: States
) -> Iterator[tuple[str, nn.Parameter, TensorState | FactorState, list[float]]]:
    """Tensors that are projected now and have been before, with their numbers, in the model's order."""
    numbers = states.numbers()
    for parameter, name in tracked.names.items():
        adapter = tracked.adapters.of(parameter)
        if adapter is not None and not adapter.exists:
            continue
        if name in numbers and numbers[name][STEPS] > 0 and name not in tracked.excluded:
            yield name, parameter, states[name], numbers[name]


def distance(tracked: Tracked, name: str, weights: nn.Parameter, state: Any) -> Tensor:
    """Row-wise L1 distance from the anchor, of all processes together."""
    if (adapter := tracked.adapters.of(weights)) is not None:
        norms = adapter.norms()
        return whole(spread_like(norms, weights)) if name in tracked.shardings else norms
    if name not in tracked.shardings:
        own: Tensor = state.distance(weights)
        return own
    return row_norms(whole(weights).detach() - whole(spread_like(state.anchor.to(weights.device), weights)))


def summary(tracked: Tracked, states: States) -> dict[str, dict[str, float]]:
    """See `FTP.summary`."""
    table = {}
    for name, weights, state, numbers in active(tracked, states):
        distances, norms = distance(tracked, name, weights, state), state.norms
        if name in tracked.shardings and not tracked.shardings[name].spread:
            norms = whole(spread_like(norms, weights))
        table[name] = {
            "radius": numbers[VALUE],
            "mean_distance": distances.mean().item(),
            "max_distance": distances.max().item(),
            "boundary_share": (norms > numbers[VALUE]).float().mean().item(),
        }
    return table
