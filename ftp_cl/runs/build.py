"""Makes the parts of a run from their keys: what a file of configs/ names, or a user's own."""

from typing import Any

from hydra.utils import get_object

from ftp_cl.plugins import SemiSupervisedPlugin
from ftp_cl.runs.catalogue import PROJECTION, combinations, entry
from ftp_cl.runs.config import call_with
from ftp_cl.runs.own_parts import import_object, is_import_path


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
    if name == known.name:
        plugins = _plugin(known.target, options)
    else:
        projection = entry("method", PROJECTION)
        ours = _plugin(projection.target, {key: options[key] for key in options if key in projection.keys})
        theirs = _plugin(known.target, {key: options[key] for key in options if key in known.keys})
        is_after = not isinstance(known.with_ftp, str) and known.with_ftp.order == "after"
        plugins = theirs + ours if is_after else ours + theirs
    for plugin in plugins:
        if hasattr(plugin, "prepare_model"):
            plugin.prepare_model(model)
        if isinstance(plugin, SemiSupervisedPlugin):
            plugin.record = True  # what pseudo-labels are worth is in the result
    return plugins


def _plugin(target: str | None, options: dict[str, Any]) -> list[Any]:
    return [] if target is None else [call_with(get_object(target), options, "method")]
