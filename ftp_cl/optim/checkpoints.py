"""FTP's state within an optimizer's, by hooks of its state dict.

It rides under a key of its own; for torch.distributed.checkpoint, which keeps nothing else of an optimizer, within each
parameter's state.
"""

import inspect
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from ftp_cl.optim.checks import is_zero
from ftp_cl.optim.states import States
from ftp_cl.optim.step_hooks import is_called_by
from ftp_cl.optim.told import logger
from ftp_cl.optim.tracked import Tracked
from ftp_cl.projection import FactorState, TensorState
from ftp_cl.projection.radius import NUMBERS, named

STATE_KEY = "ftp"
"""The key beside "state" and "param_groups" under which FTP's state rides in `optimizer.state_dict()`."""

_GROUP_KEYS = ("ftp", "ftp_k")
"""What a parameter group may say to FTP."""

_PREFIX = "ftp_"
_NONE = "The loaded optimizer state holds none of FTP's: anchors and radii stay as they are."
_TENSORS = ("anchor", "change", "norms", "shape")


class Riding:
    """Puts FTP's state into what an optimizer saves, and takes it out of what it loads.

    Args:
        tracked: the parameters.
        states: theirs.
        saved: gives the state that rides.
    """

    def __init__(self, tracked: Tracked, states: States, saved: Callable[[], dict[str, Any]]) -> None:
        self._tracked, self._states, self._saved = tracked, states, saved
        self._loading: dict[str, TensorState | FactorState] | None = None
        self._is_within = self._was_called = False

    def hooks(self, optimizer: Optimizer) -> list[Any]:
        """Handles of hooks of this optimizer, or of a wrapper."""
        handles: list[Any] = [
            optimizer.register_state_dict_post_hook(self._add),
            optimizer.register_load_state_dict_pre_hook(self._before_loading),
            optimizer.register_load_state_dict_post_hook(self._after_loading),
        ]
        own = getattr(type(optimizer), "load_state_dict", None)
        if own is not Optimizer.load_state_dict or "load_state_dict" in vars(optimizer):  # which may call no hooks
            handles.append(_Loading(optimizer, self))
        return handles

    def load(self, optimizer: Optimizer, load: Callable[[Any], Any], state_dict: Any) -> Any:
        """Load by an optimizer's own method; where FTP's state is not at hand here, hooks within may still find it."""
        self._was_called = False
        rest, states = self._taken(optimizer, state_dict) if _is_as_torchs(state_dict) else (state_dict, None)
        if states is None:
            result = load(state_dict)
            if not self._was_called:
                logger.warning(_NONE)
            return result
        before, self._is_within = self._is_within, True
        try:
            result = load(rest)
        finally:
            self._is_within = before
        self._states.replace(states)
        return result

    def _add(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        saved = self._saved()
        if not is_called_by("_get_optim_state_dict"):
            return {**state_dict, STATE_KEY: saved}
        state, parameters = dict(state_dict["state"]), [p for group in optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            own = saved["tensors"].get(self._tracked.names.get(parameter, ""))
            if own is not None:
                numbers = torch.tensor([float(own[key]) for key in NUMBERS], dtype=torch.float64, device="cpu")
                kept = {key: own[key] for key in _TENSORS if key in own} | {"numbers": numbers}
                entries = {f"{_PREFIX}{key}": value for key, value in kept.items()}
                state[index] = {**state.get(index, {}), **entries}
        return {**state_dict, "state": state}

    def _before_loading(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Check FTP's part; it is taken over once the optimizer has taken its own, which it may refuse."""
        if self._is_within:
            return None
        self._was_called = True
        rest, self._loading = self._taken(optimizer, state_dict)
        if self._loading is None:
            logger.warning(_NONE)
        return rest

    def _after_loading(self, optimizer: Optimizer) -> None:
        states, self._loading = self._loading, None
        if states is not None:
            self._states.replace(states)

    def _taken(
        self, optimizer: Optimizer, state_dict: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, TensorState | FactorState] | None]:
        """The state dict without FTP's part, and that, checked; None: it has none."""
        tensors, rest = self._taken_off(optimizer, state_dict)
        own = {"version": 1, "tensors": tensors} if tensors else state_dict.get(STATE_KEY)
        rest = {key: value for key, value in rest.items() if key != STATE_KEY}
        groups, saved = optimizer.param_groups, rest.get("param_groups", ())
        if len(groups) == len(saved):  # torch drops what a group says to FTP if the saved one does not say it
            told = [{key: group[key] for key in _GROUP_KEYS if key in group} for group in groups]
            rest["param_groups"] = [{**own, **group} for own, group in zip(told, saved, strict=True)]
        return rest, None if own is None else self._states.parse(own)

    def _taken_off(self, optimizer: Optimizer, state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """FTP's state by name, if it rides in parameters' states, and the state dict without it.

        Raises:
            ValueError: the state of a parameter is no mapping.
        """
        states, tensors, names = state_dict.get("state"), {}, self._tracked.names
        if not isinstance(states, Mapping):
            return {}, dict(state_dict)
        if is_zero(optimizer):  # has None for what other processes keep
            states = {key: {} if state is None else state for key, state in states.items()}
        for key, state in states.items():
            if not isinstance(state, Mapping):
                kind = type(state).__name__
                raise ValueError(f"The optimizer's state of parameter {key!r} is a {kind}, not a mapping.")
        for group, saved in zip(optimizer.param_groups, state_dict.get("param_groups", ()), strict=False):
            for parameter, key in zip(group["params"], saved.get("params", ()), strict=False):
                found = {name[len(_PREFIX) :]: value for name, value in states.get(key, {}).items() if _is_own(name)}
                if "numbers" in found and parameter in names:
                    numbers = named(found.pop("numbers").tolist())
                    tensors[names[parameter]] = {**found, **numbers}
        rest = {key: {n: value for n, value in state.items() if not _is_own(n)} for key, state in states.items()}
        return tensors, {**state_dict, "state": rest if tensors else states}


class _Loading:
    """Stands before the `load_state_dict` of an optimizer that has its own; a handle, as torch's hooks have."""

    def __init__(self, optimizer: Optimizer, riding: Riding) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._before = vars(optimizer).get("load_state_dict")
        before, known, unbound = self._before, self._optimizer, type(optimizer).load_state_dict

        def load_state_dict(*args: Any, **options: Any) -> Any:
            own = known()
            assert own is not None
            load = before or partial(unbound, own)
            bound = inspect.signature(load).bind(*args, **options)
            first = next(iter(bound.arguments))

            def load_without(rest: Any) -> Any:
                bound.arguments[first] = rest
                return load(*bound.args, **bound.kwargs)

            return riding.load(own, load_without, bound.arguments[first])

        self._ours = vars(optimizer)["load_state_dict"] = load_state_dict

    def remove(self) -> None:
        """Leave the optimizer as it was, unless somebody else stands there by now."""
        optimizer = self._optimizer()
        if optimizer is None or vars(optimizer).get("load_state_dict") is not self._ours:
            return
        del vars(optimizer)["load_state_dict"]
        if self._before is not None:
            vars(optimizer)["load_state_dict"] = self._before


def _is_as_torchs(state_dict: Any) -> bool:
    """Whether it has torch's form: groups, and a mapping for each parameter, or None for what another process keeps."""
    if not isinstance(state_dict, Mapping) or not isinstance(state_dict.get("param_groups"), list):
        return False
    states = state_dict.get("state")
    return isinstance(states, Mapping) and all(state is None or isinstance(state, Mapping) for state in states.values())


def _is_own(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(_PREFIX)
