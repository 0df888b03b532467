"""Parameters by canonical name, and the choice of those that are not projected."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import nn

NamedParameters = nn.Module | Mapping[str, nn.Parameter] | Iterable[tuple[str, nn.Parameter]]
Exclude = str | type[nn.Module] | Iterable[str | type[nn.Module]]

_WRAPPERS = {
    "module",  # DataParallel, DistributedDataParallel
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",  # Lightning's Fabric, under one of two names
    "_original_module",
    "base_layer",  # peft, around each layer that it adapts
}
_PEFT = ["base_model", "model"]  # and around the whole


def canonical_name(name: str) -> str:
    """A parameter's name without the parts that wrappers put into it, of the whole model or of modules in it."""
    *modules, last = name.split(".")
    modules = [module for module in modules if module not in _WRAPPERS]
    for i in range(len(modules) - 2, -1, -1):
        if modules[i : i + 2] == _PEFT:
            del modules[i : i + 2]
    return ".".join([*modules, last])


def named_list(
    parameters: Mapping[str, nn.Parameter] | Iterable[tuple[str, nn.Parameter]],
) -> list[tuple[str, nn.Parameter]]:
    """Names with parameters, from such pairs or a mapping.

    Raises:
        TypeError: if it is something else, such as parameters without names.
    """
    pairs = list(parameters.items() if isinstance(parameters, Mapping) else parameters)
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(
                f"FTP takes the model or its named parameters (model.named_parameters()), not a {type(pair).__name__}: "
                "it keeps anchor and radius by name."
            )
    return pairs


def aliases(parameters: NamedParameters) -> dict[nn.Parameter, list[str]]:
    """Each parameter with all its canonical names: more than one where modules share it (tied weights)."""
    found: dict[nn.Parameter, list[str]] = {}
    for name, parameter in _named(parameters):
        found.setdefault(parameter, []).append(canonical_name(name))
    return found


def match(exclude: Exclude, parameters: NamedParameters, option: str = "exclude") -> set[str]:
    """The canonical names that `exclude` selects.

    Args:
        exclude: one or several of: a parameter's name, a module's name (all parameters below it), a shell pattern
            (`"*.bias"`, `"blocks.?.*"`), a module type (`nn.LayerNorm`: the parameters of all such modules).
        parameters: the module, or its named parameters; module types need the module.
        option: what it is called in errors.

    Raises:
        ValueError: if an entry selects nothing (it names the nearest names), or a type is given without a module.
    """
    names = {name: canonical_name(name) for name, _ in _named(parameters)}
    selected: set[str] = set()
    for entry in exclude_entries(exclude):
        chosen = _of_type(entry, parameters) if isinstance(entry, type) else _of_pattern(entry, names)
        if not chosen:
            raise ValueError(_nothing_matches(option, entry, dict.fromkeys(names.values())))
        selected |= chosen
    return selected


def exclude_entries(exclude: Exclude) -> list[str | type[nn.Module]]:
    """What `exclude` lists.

    Raises:
        TypeError: for anything but names, patterns and module types.
    """
    entries = [exclude] if isinstance(exclude, (str, type)) or not isinstance(exclude, Iterable) else list(exclude)
    for entry in entries:
        if not isinstance(entry, (str, type)):
            raise TypeError(
                f"exclude takes names, shell patterns and module types, not {entry!r:.50}; () is for nothing."
            )
    return entries


def _named(parameters: NamedParameters) -> Iterator[tuple[str, nn.Parameter]]:
    if isinstance(parameters, nn.Module):
        return parameters.named_parameters(remove_duplicate=False)
    return iter(parameters.items() if isinstance(parameters, Mapping) else parameters)


def _of_pattern(entry: str, names: Mapping[str, str]) -> set[str]:
    """By names as they are, which tell peft's base layers from its adapters, and canonical ones; `names` has both."""
    found = {canonical for name, canonical in names.items() if _matches(name, entry) or _matches(canonical, entry)}
    return found or {canonical for canonical in names.values() if _matches(canonical, canonical_name(entry))}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _of_type(entry: type[nn.Module], parameters: NamedParameters) -> set[str]:
    if not isinstance(parameters, nn.Module):
        raise ValueError(
            f"exclude={entry.__name__} is a module type, which needs the module: pass the model itself in place of its "
            "named parameters."
        )
    return {
        canonical_name(f"{module_name}.{name}" if module_name else name)
        for module_name, module in parameters.named_modules(remove_duplicate=False)
        if isinstance(module, entry)
        for name, _ in module.named_parameters(remove_duplicate=False)
    }


def _nothing_matches(option: str, entry: str | type[nn.Module], names: Collection[str]) -> str:
    if isinstance(entry, type):
        return f"{option}={entry.__name__} matches no module with parameters."
    modules = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
    nearest = difflib.get_close_matches(canonical_name(entry), sorted({*names, *modules}), n=3, cutoff=0.3)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    if not nearest and names:
        hint = f"; the last of the model's are {', '.join(list(names)[-2:])}"
    return f"{option}={entry!r} matches no parameter{hint}."
