"""FTP's state within an optimizer's, by hooks of its state dict.

It rides under a key of its own; for torch.distributed.checkpoint, which keeps nothing else of an optimizer, within each
parameter's state.
"""

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
        self._is_within = False

    def hooks(self, optimizer: Optimizer) -> list[Any]:
        """Handles of hooks of this optimizer, or of a wrapper."""
        handles: list[Any] = [optimizer.register_state_dict_post_hook(self._add)]
        if getattr(type(optimizer), "load_state_dict", None) is not Optimizer.load_state_dict:  # it may call no hooks
            return [*handles, _Loading(optimizer, self)]
        return [
            *handles,
            optimizer.register_load_state_dict_pre_hook(self._before_loading),
            optimizer.register_load_state_dict_post_hook(self._is_loaded),
        ]

    def load(self, optimizer: Optimizer, load: Callable[..., Any], state_dict: dict[str, Any]) -> Any:
        """Load by an optimizer's own method; hooks that are called within it find nothing to do."""
        rest = self._before_loading(optimizer, state_dict)
        is_within, self._is_within = self._is_within, True
        try:
            result = load(rest)
        finally:
            self._is_within = is_within
        self._is_loaded(optimizer)
        return result

    def _add(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        saved = self._saved()
        if not is_called_by("_get_optim_state_dict"):
            return {**state_dict, STATE_KEY: saved}
        state, parameters = dict(state_dict["state"]), [p for group in optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            own = saved["tensors"].get(self._tracked.names.get(parameter, ""))
            if own is not None:
                numbers = torch.tensor([float(own[key]) for key in NUMBERS], dtype=torch.float64)
                kept = {key: own[key] for key in _TENSORS if key in own} | {"numbers": numbers}
                entries = {f"{_PREFIX}{key}": value for key, value in kept.items()}
                state[index] = {**state.get(index, {}), **entries}
        return {**state_dict, "state": state}

    def _before_loading(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Check FTP's part; it is taken over once the optimizer has taken its own, which it may refuse."""
        if self._is_within:
            return state_dict
        tensors, rest = self._taken_off(optimizer, state_dict)
        own = {"version": 1, "tensors": tensors} if tensors else state_dict.get(STATE_KEY)
        state_dict = {key: value for key, value in rest.items() if key != STATE_KEY}
        self._loading = None if own is None else self._states.parse(own)
        if self._loading is None:
            logger.warning("The loaded optimizer state holds none of FTP's: anchors and radii stay as they are.")
        groups, saved = optimizer.param_groups, state_dict.get("param_groups", ())
        if len(groups) == len(saved):  # torch drops what a group says to FTP if the saved one does not say it
            told = [{key: group[key] for key in _GROUP_KEYS if key in group} for group in groups]
            state_dict["param_groups"] = [{**own, **group} for own, group in zip(told, saved, strict=True)]
        return state_dict

    def _is_loaded(self, optimizer: Optimizer) -> None:
        if self._is_within:
            return
        states, self._loading = self._loading, None
        if states is not None:
            self._states.replace(states)

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
        load, known = type(optimizer).load_state_dict, self._optimizer

        def load_state_dict(state_dict: dict[str, Any], **options: Any) -> Any:
            own = known()
            assert own is not None
            return riding.load(own, partial(load, own, **options), state_dict)

        vars(optimizer)["load_state_dict"] = load_state_dict

    def remove(self) -> None:
        """Leave the optimizer as it was."""
        optimizer = self._optimizer()
        if optimizer is not None:
            vars(optimizer).pop("load_state_dict", None)


def _is_own(name: Any) -> bool:
    return isinstance(name, str) and name.startswith(_PREFIX)
