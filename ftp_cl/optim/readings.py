"""What FTP has found: radii and distances of what is projected as plain numbers, skipped steps, unseen ones."""

import weakref
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ftp_cl.optim.sharding import local, spread_like, whole
from ftp_cl.optim.states import States
from ftp_cl.optim.told import Told, and_more
from ftp_cl.optim.tracked import Tracked
from ftp_cl.optim.unseen import UnseenSteps
from ftp_cl.projection import FactorState, TensorState
from ftp_cl.projection.radius import SKIPPED, STEPS, VALUE
from ftp_cl.projection.rows import row_norms, summary_of_rows


class Readings:
    """The part of `FTP` that reads and changes nothing."""

    _tracked: Tracked
    _states: States
    _told: Told
    _unseen: UnseenSteps
    _optimizer: weakref.ref[Optimizer] | None

    def radii(self) -> dict[str, float]:
        """Gamma of each tensor that has been projected, in units of a row's L1 norm."""
        self.warn_of_unseen_steps()
        return {name: numbers[VALUE] for name, _, _, numbers in self._active()}

    def distances(self) -> dict[str, Tensor]:
        """Row-wise L1 distance of the current weights from the anchor, per tensor, shape [anchored rows], on CPU."""
        return {name: self._distance(name, weights, state).cpu() for name, weights, state, _ in self._active()}

    def skipped(self) -> dict[str, int]:
        """Steps in which something was not finite, for tensors that have any."""
        return {name: int(numbers[SKIPPED]) for name, numbers in self._states.numbers().items() if numbers[SKIPPED]}

    def summary(self) -> dict[str, dict[str, float]]:
        """Radius and distances of each tensor that has been projected, as plain numbers.

        Per tensor: `radius`, `mean_distance` and `max_distance` (row-wise L1, as `distances`), and `boundary_share`,
        the share of rows that the last step pulled back onto the boundary.
        """
        self.warn_of_unseen_steps()
        table, shardings = {}, self._tracked.shardings
        for name, weights, state, numbers in self._active():
            distances, norms = self._distance(name, weights, state), state.norms
            if name in shardings and not shardings[name].spread:
                norms = whole(spread_like(norms, weights))
            table[name] = summary_of_rows(numbers[VALUE], distances, norms > numbers[VALUE])
        return table

    def warn_of_unseen_steps(self) -> None:
        """Warn, once, of tensors that have changed since `attach` without a step that was followed by a projection."""
        optimizer = None if self._optimizer is None else self._optimizer()
        groups = [] if optimizer is None else optimizer.param_groups
        free = {parameter for group in groups if not group.get("ftp", True) for parameter in group["params"]}
        bound = {name: parameter for name, parameter in self._tracked.projected().items() if parameter not in free}
        if changed := self._unseen.changed(bound, self._states):
            self._told.once(
                "unseen",
                f"{and_more(changed)} changed without a step that FTP saw, and are not projected: attach() FTP to the "
                "optimizer whose step() is called.",
            )

    def _active(self) -> Iterator[tuple[str, nn.Parameter, TensorState | FactorState, list[float]]]:
        """Tensors that are projected now and have been before, with their numbers, in the model's order."""
        tracked, numbers = self._tracked, self._states.numbers()
        for parameter, name in tracked.names.items():
            adapter = tracked.adapters.of(parameter)
            if adapter is not None and not adapter.exists:
                continue
            if name in numbers and numbers[name][STEPS] > 0 and name not in tracked.excluded:
                yield name, parameter, self._states[name], numbers[name]

    def _distance(self, name: str, weights: nn.Parameter, state: Any) -> Tensor:
        """Row-wise L1 distance from the anchor, of all processes together."""
        is_spread = name in self._tracked.shardings
        if (adapter := self._tracked.adapters.of(weights)) is not None:
            norms = adapter.norms()
            return whole(spread_like(norms, weights)) if is_spread else norms
        if not is_spread:
            own: Tensor = state.distance(local(weights))
            return own
        return row_norms(whole(weights).detach() - whole(spread_like(state.anchor.to(weights.device), weights)))
