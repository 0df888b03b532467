"""Everything that a run's next step depends on: collected from a strategy for a checkpoint, and put back."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import trigger_plugins
from torch import nn

from ftp_cl.optim.checkpoints import STATE_KEY
from ftp_cl.plugins.randomness import capture_random_state, restore_random_state
from ftp_cl.runs.packing import CannotSave, Packing, check_class, load_part, load_resized

_METHODS = (("checkpoint_state", "restore_state"), ("state_dict", "load_state_dict"))


def strategy_state(strategy: SupervisedTemplate, packing: Packing) -> dict[str, Any]:
    """The state of a strategy: model, optimizer, plugins, own attributes, and the global random generators.

    A plugin takes part in one of three ways. With `state_dict()` and `load_state_dict(state, strategy)` it says itself
    what its state is; the latter is called when model and optimizer are in place, and may do without the strategy.
    (`checkpoint_state` and `restore_state` are their earlier names, still honoured.) Otherwise its attributes are
    saved if all are plain values, tensors, datasets of the benchmark's items, objects with `state_dict`
    and `load_state_dict`, or objects of Avalanche and ftp_cl made of these. Otherwise nothing can be saved. So do the
    attributes of the strategy that Avalanche's template does not have, those of a user's own class.

    Raises:
        CannotSave: a plugin (or the optimizer) has state that has no form in a checkpoint.
    """
    return {
        "model": _model_state(strategy.model, packing),
        "optimizer": _optimizer_state(strategy, packing),
        "parts": parts_state(strategy, packing),
        "random": packing.pack(capture_random_state(strategy.device), "random"),
    }


def load_strategy_state(
    state: dict[str, Any], strategy: SupervisedTemplate, packing: Packing, trained_on: Sequence[Any]
) -> None:
    """The inverse of `strategy_state`, on a strategy made from the same configuration, before or while training.

    Args:
        state: as it was read; of this strategy alone from now on.
        strategy: to bring there.
        packing: with the benchmark's items.
        trained_on: the experiences begun so far, for models whose modules appear with them.

    Raises:
        ValueError: the state does not fit the strategy; other errors, if no run has written it.
    """
    _load_model(state["model"], strategy, packing, trained_on)
    _load_optimizer(state["optimizer"], strategy, packing)
    load_parts_state(state["parts"], strategy, packing)
    restore_random_state(packing.unpack(state["random"]), strategy.device)


# ---- the model ------------------------------------------------------------------------------------------------------


def _model_state(model: nn.Module, packing: Packing) -> dict[str, Any]:
    # Plain attributes: whether the module is in training mode, how many columns a head gives, and such.
    plain = {
        name: {attribute: value for attribute, value in vars(module).items() if type(value) in (bool, int, float)}
        for name, module in model.named_modules()
    }
    return {
        "tensors": packing.pack(dict(model.state_dict()), "model"),
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modules": plain,
    }


def _load_model(
    state: dict[str, Any], strategy: SupervisedTemplate, packing: Packing, trained_on: Sequence[Any]
) -> None:
    strategy.model.to(strategy.device)
    model, tensors = strategy.model, packing.unpack(state["tensors"])
    if model.state_dict().keys() != tensors.keys():
        _replay_adaptation(strategy, trained_on)
    load_resized(model, tensors)
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    for name, requires_grad in state["requires_grad"].items():
        parameters[name].requires_grad_(bool(requires_grad))
    for name, attributes in state["modules"].items():
        module = modules[name]
        for attribute, value in attributes.items():
            if type(vars(module).get(attribute)) is not type(value):
                raise ValueError(f"the module {name!r} has no such {attribute}")
            setattr(module, attribute, value)


def _replay_adaptation(strategy: SupervisedTemplate, trained_on: Sequence[Any]) -> None:
    """Let modules appear as they did in training; what is in them is loaded afterwards."""
    strategy.model.train()
    strategy.is_training = True
    trigger_plugins(strategy, "before_training")
    for strategy.experience in trained_on:
        strategy.model = strategy.model_adaptation()
    strategy.experience = None


# ---- the optimizer --------------------------------------------------------------------------------------------------


def _optimizer_state(strategy: SupervisedTemplate, packing: Packing) -> dict[str, Any]:
    """As the optimizer's state dict, with names in place of numbers, because growth changes parameters and order."""
    names = {id(parameter): name for name, parameter in strategy.model.named_parameters()}
    groups = [[names.get(id(parameter)) for parameter in group["params"]] for group in strategy.optimizer.param_groups]
    if any(name is None for group in groups for name in group):
        raise CannotSave("the optimizer has parameters that are not the model's")
    # FTP's state rides in there; its plugin saves it.
    state = {key: value for key, value in strategy.optimizer.state_dict().items() if key != STATE_KEY}
    return {"names": groups, "state": packing.pack(state, "optimizer")}


def _load_optimizer(state: dict[str, Any], strategy: SupervisedTemplate, packing: Packing) -> None:
    optimizer, parameters = strategy.optimizer, dict(strategy.model.named_parameters())
    optimizer.state.clear()
    for group, names in zip(optimizer.param_groups, state["names"], strict=True):
        group["params"] = [parameters[name] for name in names]
    found = packing.unpack(state["state"])
    for group, saved in zip(optimizer.param_groups, found.get("param_groups", []), strict=False):
        saved |= {name: group[name] for name in ("fused", "foreach") if name in group}  # how, not what, is computed
    optimizer.load_state_dict(found)
    if type(optimizer) in (torch.optim.SGD, torch.optim.AdamW):
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape != (() if name == "step" else parameter.shape):
                    raise ValueError(f"the optimizer's {name} is {list(value.shape)}, and its weights are not")
    # Avalanche's record of what it put into the optimizer; without it, it would empty the optimizer's state.
    strategy.optimized_param_id = parameters


# ---- plugins and own attributes -------------------------------------------------------------------------------------


def parts_state(strategy: SupervisedTemplate, packing: Packing, users_only: bool = False) -> dict[str, Any]:
    """The state of the plugins, or of those alone that a user brought along, and of the strategy's own attributes.

    Raises:
        CannotSave: as `strategy_state`.
    """
    states = []
    for plugin in _plugins(strategy, users_only):
        name, methods, state = type(plugin).__name__, _methods(plugin), vars(plugin)
        if isinstance(plugin, EvaluationPlugin):
            state = {}  # its metrics start anew at each evaluation
        elif methods:
            state = getattr(plugin, methods[0])()
        states.append({"class": name, "state": packing.pack(dict(state), name)})
    return {"plugins": states, "attributes": packing.pack(_own_attributes(strategy), "strategy")}


def load_parts_state(state: Any, strategy: SupervisedTemplate, packing: Packing, users_only: bool = False) -> None:
    """The inverse of `parts_state`."""
    for saved, plugin in zip(state["plugins"], _plugins(strategy, users_only), strict=True):
        check_class(saved["class"], plugin)
        if methods := _methods(plugin):
            load_part(plugin, methods[1], packing.unpack(saved["state"], None, strategy), strategy)
        elif not isinstance(plugin, EvaluationPlugin):
            packing.unpack(saved["state"], vars(plugin), strategy)
    existing = _own_attributes(strategy)
    for name in existing:
        delattr(strategy, name)
    vars(strategy).update(packing.unpack(state["attributes"], existing, strategy))


def _plugins(strategy: SupervisedTemplate, users_only: bool) -> list[Any]:
    known = ("avalanche", "ftp_cl") if users_only else ()
    return [plugin for plugin in strategy.plugins if type(plugin).__module__.split(".")[0] not in known]


def _methods(plugin: Any) -> tuple[str, str] | None:
    """Those by which it saves and loads itself; a module's own know nothing of its other attributes."""
    for save, load in _METHODS:
        found = [getattr(type(plugin), name, None) for name in (save, load)]
        if all(map(callable, found)) and found[0] is not nn.Module.state_dict:
            return save, load
    return None


def _own_attributes(strategy: SupervisedTemplate) -> dict[str, Any]:
    """Those that Avalanche's template does not have."""
    known = {"checkpoints", *_attributes_of_template()}
    return {name: value for name, value in vars(strategy).items() if name not in known}


@cache
def _attributes_of_template() -> frozenset[str]:
    """All are there from the beginning; without an evaluator, which would warn that it has no logger."""
    optimizer = torch.optim.SGD([torch.zeros(1)])  # of no layer: that would draw random numbers
    return frozenset(vars(Naive(model=nn.Identity(), optimizer=optimizer, evaluator=lambda: None)))  # type: ignore
