"""Makes the parts of a run from their keys: what a file of configs/ names, or a user's own by its import path."""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from avalanche.training.templates import SupervisedTemplate
from hydra.utils import get_object

from ftp_cl.plugins import SemiSupervisedPlugin
from ftp_cl.runs.catalogue import PROJECTION, Combination, combinations, entry
from ftp_cl.runs.config import ConfigError, call_with, suggestion
from ftp_cl.runs.output import sentence


def built(group: str, options: dict[str, Any]) -> Any:
    """The benchmark or model that has these keys, `name` among them.

    Raises:
        ConfigError: a key is unknown, missing or of a wrong kind.
        ValueError: a value is out of range.
    """
    options = dict(options)
    name = options.pop("name")
    if is_import_path(name):
        return call_with(import_object(name, f"{group}.name"), options, group)
    known = entry(group, name)
    return call_with(get_object(str(known.target)), options, group, *known.arguments)


def methods_plugins(options: dict[str, Any], model: Any) -> list[Any]:
    """The plugins of a method, in the order in which their hooks are to run; they may change the model.

    A user's own is a function that takes the model and the other keys. The keys of a combination with FTP are those of
    both; one that both have is for both.

    Raises:
        ConfigError, ValueError: as `built`.
    """
    options = dict(options)
    name = options.pop("name")
    if is_import_path(name):
        return call_with(import_object(name, "method.name"), options, "method", model)
    known = entry("method", combinations().get(name, name))
    parts = [(known, options)]
    if name != known.name:
        both = (entry("method", PROJECTION), known)
        parts = [(part, {key: options[key] for key in options if key in part.keys}) for part in both]
    plugins = [call_with(get_object(part.target), own, "method") for part, own in parts if part.target is not None]
    if len(parts) > 1 and isinstance(known.with_ftp, Combination) and known.with_ftp.order == "after":
        plugins.reverse()
    for plugin in plugins:
        if hasattr(plugin, "prepare_model"):
            plugin.prepare_model(model)
        if isinstance(plugin, SemiSupervisedPlugin):
            plugin.record = True  # what pseudo-labels are worth is in the result
    return plugins


# ---- a user's own, named by import path: `my_package.my_module:function` --------------------------------------------


def is_import_path(name: str) -> bool:
    """Whether a name means a user's own code rather than an entry of a registry."""
    return ":" in name


def import_object(path: str, key: str) -> Callable[..., Any]:
    """What an import path names; modules in the current directory are found too.

    Args:
        path: `package.module:name`.
        key: of the configuration, for errors.

    Raises:
        ConfigError: there is no such module, or nothing callable of this name in it.
    """
    module_name, _, name = path.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, name, None)
    except Exception as error:  # whatever the user's module raises; of a relative name, a TypeError
        raise ConfigError(f"{key}={path} cannot be imported: {sentence(error).rstrip('.')}.") from error
    if not callable(found):
        raise ConfigError(f"{key}={path} is wrong: {module_name} has no function or class {name!r}.")
    return found


def own_plugins(parts: list[dict[str, Any]]) -> list[Any]:
    """A user's plugins, from `plugins=[{name: my_module:MyPlugin, option: 1}]`.

    Raises:
        ConfigError: there is no such plugin, or it does not take an option.
    """
    plugins = []
    for part in parts:
        options = dict(part)
        name = options.pop("name")
        plugins.append(call_with(import_object(name, "plugins.name"), options, f"plugins.{name}"))
    return plugins


def own_strategy(path: str, options: Mapping[str, Any], given: Collection[str]) -> type[SupervisedTemplate]:
    """The class of a user's strategy, from `strategy={name: my_module:MyStrategy, option: 1}`.

    Args:
        path: of the class.
        options: it is to be built with these,
        given: and with the arguments of these names, which other keys of the configuration set.

    Raises:
        ConfigError: it is no supervised strategy of Avalanche, or takes other options.
    """
    found = import_object(path, "strategy.name")
    if not (inspect.isclass(found) and issubclass(found, SupervisedTemplate)):
        raise ConfigError(
            f"strategy.name={path} is wrong: it must be a class made from Avalanche's SupervisedTemplate."
        )
    # A class and its bases, to which it hands on what it does not take itself.
    signatures = [inspect.signature(ancestor.__init__) for ancestor in found.__mro__]  # type: ignore[misc]
    parameters = [parameter for signature in signatures for parameter in signature.parameters.values()]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = sorted(named - {"self", *given})
    for key in options:
        if key in given:
            raise ConfigError(f"strategy.{key} is set by another key of the configuration: leave it out.")
        if key not in known:
            raise ConfigError(f"strategy.{key} is unknown{suggestion(key, known)}")
    return found
