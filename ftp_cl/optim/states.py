"""What FTP keeps of each tensor, by name: made before its first step, saved and loaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.optim.adapter_kinds import Adapter
from ftp_cl.optim.adapters import check, check_given_anchor
from ftp_cl.optim.checks import check_anchor, check_precision, check_rounding
from ftp_cl.optim.names import canonical_name
from ftp_cl.optim.sharding import local, local_like, spread_like
from ftp_cl.optim.told import Told, logger
from ftp_cl.optim.tracked import Tracked
from ftp_cl.projection import FactorState, Sharding, Storage, TensorState
from ftp_cl.projection.checks import number
from ftp_cl.projection.radius import SKIPPED, VALUE
from ftp_cl.projection.rows import refuse_capture
from ftp_cl.projection.tensor_state import is_anchor_of


class States(dict[str, Any]):
    """A `TensorState` of each tensor that has been projected, by name; of an adapter, a `FactorState`.

    Attributes:
        given: anchors by name, the very tensors of the states that have them; of other tensors, the anchor is the
            weights before their first step.
    """

    def __init__(self, tracked: Tracked, method: str, storage: Storage, round_anchor: bool, told: Told) -> None:
        super().__init__()
        self._tracked, self._method, self._storage, self._told = tracked, method, storage, told
        self._may_round = round_anchor or storage.anchor_dtype is None
        self.given: dict[str, Tensor] = {}

    def checked_anchor(self, anchor: Mapping[str, Tensor] | None, *, complete: bool = True) -> dict[str, Tensor]:
        """`anchor` by canonical name; `complete`: it must have every tensor that will be projected."""
        if anchor is None:
            return {}
        adapters, projected = self._tracked.adapters, self._tracked.projected()
        values = check_anchor(anchor, {n: p for n, p in projected.items() if n not in adapters.by_name()}, complete)
        check_given_anchor(values, adapters, self._tracked.names)
        return {name: value.to(device=self._storage.anchor_device) for name, value in values.items()}

    def of(self, name: str, parameter: nn.Parameter) -> TensorState | None:
        """The state that fits the parameter; None, with a warning, while there are no finite weights to stay near."""
        state: TensorState | None = self.get(name)
        weights = local(parameter)
        if state is not None and state.follows(weights):
            return state
        if state is not None and not state.fits(weights):
            self._told.once(f"{name}:shape", f"{name} has another shape than its anchor; it is anchored anew.")
            state = None
            del self[name]
        if state is None:
            refuse_capture(weights.device)
            anchor = local_like(self.given.get(name), parameter)
            if anchor is None or not is_anchor_of(anchor, weights):
                anchor = weights
            state = TensorState(anchor, like=weights, storage=self._storage)
            self._check_rounding(name, anchor.to(weights), state)
            if not torch.isfinite(state.anchor).all():
                self._told.once(f"{name}:anchor", f"{name} is not finite: it is projected once it has a finite anchor.")
                return None
            self[name] = state
        check_precision(name, weights, self._method)
        anchor = state.anchor
        state.follow(weights)
        self._check_rounding(name, anchor, state)
        if self._is_given(name, state.anchor):
            self.given[name] = state.anchor
        return state

    def _is_given(self, name: str, anchor: Tensor) -> bool:
        """Whether an anchor is the given one, to the precision that is asked for."""
        given = self.given.get(name)
        if given is None or (self._storage.anchor_dtype is None and given.dtype != anchor.dtype):
            return False
        return torch.equal(given.to(anchor), anchor)

    def of_adapter(self, adapter: Adapter, rows: Tensor, sharding: Sharding | None) -> FactorState:
        """That of an adapter, of whose factor these are the rows; its ball is around no change."""
        factor = adapter.factors()[0]
        state = self.get(adapter.name)
        known = isinstance(state, FactorState) and state.belongs_to(factor)
        if not known or factor.dtype == torch.float16:
            check(adapter)
        if not known:
            state = self[adapter.name] = FactorState(factor.shape, len(rows), rows.device)
            state.numbers[VALUE] = adapter.longest_row(sharding)
            state.belongs_to(factor)
        assert isinstance(state, FactorState)
        if not state.follows(rows):
            state.follow(rows)
        return state

    def _check_rounding(self, name: str, exact: Tensor, state: TensorState) -> None:
        """Of an anchor that has just been copied."""
        if not self._may_round:
            check_rounding(name, exact, state.anchor)

    def numbers(self) -> dict[str, list[float]]:
        """Radius, moments and counts of each state; read from the devices, and skips are said."""
        numbers: dict[str, list[float]] = {}
        for device in {state.numbers.device for state in self.values()}:
            here = {name: state.numbers for name, state in self.items() if state.numbers.device == device}
            numbers |= zip(here, torch.stack(list(here.values())).tolist(), strict=True)
        self._told.of_skips([name for name, line in numbers.items() if line[SKIPPED]])
        return numbers

    def saved(self) -> dict[str, Any]:
        """Those of sharded tensors as distributed tensors."""
        tensors = {name: state.state_dict() for name, state in self.items()}
        for name, parameter in self._tracked.projected().items():
            if name in tensors and name in self._tracked.shardings:
                parts = ["anchor", "change", *["norms"] * (parameter.dim() > 1)]
                tensors[name] = {
                    key: spread_like(value, parameter) if key in parts else value
                    for key, value in tensors[name].items()
                }
        return {"version": 1, "tensors": tensors}

    def parse(self, state_dict: Mapping[str, Any]) -> dict[str, TensorState | FactorState]:
        """The inverse of `saved`, checked as `FTP.load_state_dict` says; nothing is changed."""
        known = isinstance(state_dict, Mapping) and state_dict.keys() == {"version", "tensors"}
        if not known or number(state_dict["version"]) != 1 or not isinstance(state_dict["tensors"], Mapping):
            raise ValueError("This is no state dict of FTP (version 1).")
        states, adapters = self.read(state_dict["tensors"]), self._tracked.adapters.by_name()
        for parameter, name in self._tracked.names.items():
            state = states.get(name)
            if state is None:
                continue
            if name not in self._tracked.excluded and isinstance(state, FactorState) is not (name in adapters):
                raise ValueError(
                    f"The saved state of {name!r} is that of {'a tensor' if name in adapters else 'an adapter'}, which "
                    f"it is not in this model, or was not for FTP then."
                )
            if not state.fits(parameter if isinstance(state, FactorState) else local(parameter)):
                raise ValueError(
                    f"The saved state of {name!r} has shape {tuple(state.shape)}, the model's tensor "
                    f"{tuple(parameter.shape)}."
                )
            if name in adapters and len(state.norms) != (rows := len(adapters[name].rows(local(parameter)))):
                raise ValueError(
                    f"The saved state of {name!r} has norms of {len(state.norms)} rows, the adapter {rows} rows."
                )
        return states

    def read(self, saved: Mapping[str, Any]) -> dict[str, TensorState | FactorState]:
        """States by canonical name, not yet compared with the model's tensors."""
        states: dict[str, TensorState | FactorState] = {}
        shardings = self._tracked.shardings
        sharded = {name: parameter for parameter, name in self._tracked.names.items() if name in shardings}
        for name, tensor in saved.items():
            try:
                if name in sharded and isinstance(tensor, Mapping):
                    tensor = {
                        key: value
                        if key == "shape" or (key == "norms" and shardings[name].spread)
                        else local_like(value, sharded[name])
                        for key, value in tensor.items()
                    }
                if FactorState.is_saved(tensor):
                    state: TensorState | FactorState = FactorState.from_state_dict(tensor)
                else:
                    state = TensorState.from_state_dict(tensor, self._storage, part=name in sharded)
                    self._check_rounding(name, tensor["anchor"], state)
            except ValueError as error:
                raise ValueError(f"The saved state of {name!r:.80} cannot be used: {error}.") from None
            if not isinstance(name, str) or canonical_name(name) in states:
                raise ValueError(f"The saved state's {name!r:.80} is no name, or that of another tensor in it, too.")
            states[canonical_name(name)] = state
        return states

    def replace(self, states: Mapping[str, TensorState | FactorState]) -> None:
        """Take over what was parsed; names without a partner are named in a warning."""
        names = self._tracked.names.values()
        lacking = [name for name, p in self._tracked.projected().items() if p.requires_grad and name not in states]
        unknown = [name for name in states if name not in names]
        if names and states and (lacking or unknown):
            logger.warning(
                "The loaded state of FTP and the model do not have the same tensors. "
                "Only the state has, for later: %s. Only the model has, with new anchors and radii: %s.",
                _listed(unknown),
                _listed(lacking),
            )
        self.clear()
        self.update(states)


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:20], *[f"{len(names) - 20} more"] * (len(names) > 20)]) or "none"
