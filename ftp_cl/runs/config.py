"""From the words of a command line to one checked configuration."""

import copy
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ftp_cl.runs.catalogue import (
    DESCRIPTION_KEYS,
    GROUPS,
    combined,
    config_directory,
    entry,
    options_of,
    register_combinations,
)
from ftp_cl.runs.check import check_configuration
from ftp_cl.runs.schema import SECTIONS, ConfigError, defaults, flat, shortened, suggestion

_ABSENT = object()

_ABOUT_FILES = re.compile(
    r"_target_|_args_|_partial_|\b(method|model|benchmark)\.(description|extra_keys|with_ftp|masks)\b|^[+~]*description\b"
)


def load_config(overrides: Sequence[str], benchmark: Mapping[str, Any] | None = None) -> DictConfig:
    """Compose and check the configuration of one run.

    Args:
        overrides: Hydra's, as on the command line: `method=ftp`, `train.epochs=5`, `+model.img_size=64`.
        benchmark: keys of the benchmark that is chosen, taken as they stand where `overrides` do not give them.

    Raises:
        ConfigError: for an unknown group, choice or key, or a value of the wrong type or range.
    """
    for override in overrides:
        if re.match(r"[+~]*hydra[./=]", override):
            raise ConfigError(f"{shortened(override)} is for many runs: use it with ftp-cl run -m.")
    overrides = prepared(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory().resolve()), version_base="1.3"):
        try:
            config = _composed(overrides)
        except Exception as error:  # Hydra asserts, or recurses without end, where words are malformed
            raise ConfigError(_explain(error, overrides)) from error
    if benchmark is not None:
        given = [f"{parsed(word).key_or_group}." for word in overrides]  # benchmark.colours.road., too
        own = {
            key: value
            for key, value in benchmark.items()
            if not any(word.startswith(f"benchmark.{key}.") for word in given)
        }
        OmegaConf.update(config, "benchmark", literal({**plain(config.benchmark), **own}), merge=False, force_add=True)
    check(config)
    if benchmark is None:
        leave_size_to_model(config, overrides)
    return config


def _composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of these words, single keys apart from the files that are chosen: those take it long."""
    words = [parsed(word) for word in overrides]
    if any(word.is_sweep_override() for word in words):
        raise HydraException("A key has several values.")
    single = [word for word in words if "." in word.key_or_group or word.key_or_group in defaults()]
    chosen = tuple(str(word.input_line) for word in words if word not in single)
    config = copy.deepcopy(_chosen(chosen))
    ConfigLoaderImpl._apply_overrides_to_config(single, config)
    return config


@lru_cache(maxsize=128)
def _chosen(words: tuple[str, ...]) -> DictConfig:
    """The keys of the files that these words choose."""
    config = compose("config", list(words))
    drop_descriptions(config)
    return config


def leave_size_to_model(config: DictConfig, overrides: Sequence[str]) -> None:
    """Make benchmark.size null, which is the model's own or its earlier run's, unless it was given or there is none."""
    given = any(parsed(word).key_or_group == "benchmark.size" for word in overrides)
    if given or not (has_preprocessing(plain(config.model)) or "start" in config.model):
        return
    known = {} if ":" in config.benchmark.name else entry("benchmark", config.benchmark.name).keys
    if "size" in known and config.benchmark.size == known["size"]:  # otherwise an experiment's file has set it
        config.benchmark.size = None


def has_preprocessing(model: Mapping[str, Any]) -> bool:
    """Whether the model with these keys says how its images are made; older results of timm's have no such keys."""
    return "interpolation" in model and ":" not in model["name"]


def prepared(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them: with `with=ftp` methods become their combinations with FTP.

    Raises:
        ConfigError: for a method that is not combined with FTP, a value of `with` that is none, or a key that only the
            files that ship may have.
    """
    for override in overrides:
        if found := _ABOUT_FILES.search(override):
            raise ConfigError(f"{override} is refused: {found[0]} stands in the files that ship only.")
    register_combinations()
    overrides = [f"+{word}" if word.startswith("model.start=") else word for word in overrides]  # of every model
    given = {
        key: [word for word in overrides if word.partition("=")[0].lstrip("+") == key] for key in ("with", "method")
    }
    if not given["with"]:
        return list(overrides)
    values = [_values(word) for word in (given["with"][-1], *(given["method"] or ["method=ftp"])[-1:])]
    try:
        chosen = [combined(method, other) for other in values[0] for method in values[1]]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    rest = [word for word in overrides if word not in (*given["with"], *given["method"])]
    return [f"method={','.join(dict.fromkeys(chosen))}", *rest]


def _values(override: str) -> list[str]:
    """The value of an override, or those of a sweep."""
    found = parsed(override)
    if found.is_discrete_sweep() and found.is_choice_sweep():
        return [str(value) for value in found.sweep_string_iterator()]
    return [override.partition("=")[2].strip("'\"")]


def drop_descriptions(config: DictConfig) -> None:
    """Leave the keys of a run: what a file says of itself is no key of it."""
    if "description" in config:  # of an experiment
        with open_dict(config):
            del config["description"]
    for group in GROUPS:
        if isinstance(config.get(group), DictConfig):
            keys = [str(key) for key in config[group] if key not in DESCRIPTION_KEYS]
            config[group] = OmegaConf.masked_copy(config[group], keys)


def load_repeated(result: Path, overrides: Sequence[str], trust: bool = False) -> DictConfig:
    """The configuration of a finished run, to repeat it.

    Its values are taken as they stand: an interpolation in them would read what the run's author never saw.

    Args:
        result: its result.json.
        overrides: `key=value` for keys that are to differ, as `out`.
        trust: import what it names; otherwise only what is ours is run.

    Raises:
        ConfigError: the file holds no configuration, names code of somebody's own, or a key or value is wrong.
    """
    from ftp_cl.runs.files import read_file  # takes a while

    if not Path(result).exists():
        raise ConfigError(f"There is no {result}, which each finished run has.")
    try:
        recorded = literal(json.loads(read_file(result))["config"])
        # Keys that are newer than the result have their defaults.
        config = OmegaConf.merge(defaults(), recorded, {"out": None, "resume": False})
        assert isinstance(config, DictConfig)
        check(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigError(f"{result} holds no configuration of a run ({_first_line(error)}).") from error
    parts = [(key, config[key]) for key in (*GROUPS, "strategy") if config[key]]
    parts += [("plugins", plugin) for plugin in config.plugins]
    named = [f"{key}.name={part.name}" for key, part in parts if ":" in part.name]  # the user's own
    if named and not trust:
        raise ConfigError(f"{result} runs code that it names, {', '.join(named)}: add --trust if you trust its source.")
    try:
        for word in overrides:
            _change(config, word)
        check(config)
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{shortened(' '.join(overrides))} cannot be read: {_first_line(error)}.") from error
    return config


def _change(config: DictConfig, word: str) -> None:
    """Set one key of a finished run's configuration."""
    override = parsed(word)
    key, known = override.key_or_group, flat(OmegaConf.to_container(config))  # type: ignore[arg-type]
    if override.is_sweep_override():
        raise ConfigError(f"{shortened(word)} has several values, which --from does not take.")
    if override.type is not OverrideType.CHANGE or OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
        raise ConfigError(f"{shortened(key)} is no key of the configuration{suggestion(key, known)}")
    if key in (*GROUPS, *SECTIONS):
        single = next(name for name in known if name.startswith(f"{key}."))
        raise ConfigError(f"{shortened(word)} is too much for --from, which changes single keys, such as {single}.")
    OmegaConf.update(config, key, override.value(), merge=False)


def literal(node: Any) -> Any:
    """The same values, with what OmegaConf would take for interpolations in them escaped."""
    if isinstance(node, dict):
        return {key: literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def check(config: DictConfig) -> None:
    """Resolve references between keys, and check all keys and values.

    Raises:
        ConfigError: naming the first key that is wrong.
    """
    try:
        config.update(literal(plain(config)))  # resolving it once more changes nothing
        missing = sorted(OmegaConf.missing_keys(config))
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"The configuration cannot be resolved: {_first_line(error)}.") from error
    if missing:
        raise ConfigError(f"{missing[0]} must be given: {missing[0]}=...")
    check_configuration(plain(config))


def _first_line(error: Exception) -> str:
    return shortened(next(iter(str(error).splitlines()), type(error).__name__).rstrip("."))


def plain(group: DictConfig) -> dict[str, Any]:
    """The keys of a part of the configuration, and their values without OmegaConf's types."""
    return {str(key): value for key, value in OmegaConf.to_container(group, resolve=True).items()}  # type: ignore[union-attr]


def call_with(function: Callable[..., Any], options: Mapping[str, Any], what: str, *args: Any) -> Any:
    """Call `function(*args, **options)`, where options are the keys below `what` in the configuration.

    Raises:
        ConfigError: for a key that the function does not take, naming the nearest it does, one that it lacks, or a
            value of a wrong type.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise ConfigError(f"{what}.{key} is unknown{suggestion(key, list(parameters)[len(args) :])}")
    try:
        signature.bind(*args, **options)  # which says what is missing in fewer words
        return function(*args, **options)
    except TypeError as error:
        raise ConfigError(f"{what} cannot be built: {str(error).rstrip('.')} (--debug shows where).") from error


def parsed(word: str) -> Override:
    """What an override says, in Hydra's grammar.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError, RecursionError) as error:
        key, equals, value = word.partition("=")
        if not equals:
            words = f"{shortened(word)!r} is no override: write key=value, such as method=ftp or train.epochs=5."
        elif isinstance(error, HydraException) and value[:1] not in "[{'\"" and "'" not in value:
            quoted = shortened(f"{key}='{value}'")
            words = f'{shortened(word)} cannot be read: quote what has special characters, as in "{quoted}".'
        else:
            words = f"{shortened(word)} cannot be read: {_first_line(error)}."
        raise ConfigError(words) from error


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence in place of Hydra's paragraphs."""
    for word in sorted(overrides, key=lambda word: "." in word.partition("=")[0]):  # what they choose has the keys
        override, value = parsed(word), word.partition("=")[2].strip("'\"")
        key, added = override.key_or_group, override.is_add() or override.is_force_add()
        if override.is_sweep_override():
            return f"{word} has several values: ftp-cl run -m runs each of them."
        if key in (*GROUPS, "experiment"):
            if value not in options_of(key):
                return f"{shortened(word)} is unknown{suggestion(shortened(value), options_of(key))}"
            if key == "experiment" and not added:
                return f"{word} needs a plus sign: +{word}."
            continue
        known, addable = _known_keys(overrides)
        if key in addable and not added:
            return f"{shortened(word)} needs a plus sign: +{shortened(word)}."
        if known and not added and key not in known and key not in {k.rsplit(".", 1)[0] for k in known}:
            return f"{shortened(key)} is no key of the configuration{suggestion(key, known)}"
    return _first_line(error) + "."


def _known_keys(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All keys that the chosen groups have, down to single ones, and those that may be added; with their values."""
    groups = [word for word in overrides if word.partition("=")[0] in (*GROUPS, "+experiment")]
    try:
        composed: Any = OmegaConf.to_container(compose("config", groups))
    except (HydraException, OmegaConfBaseException):
        return {}, {}
    extra = {group: composed[group].get("extra_keys") for group in GROUPS}
    for group in GROUPS:
        composed[group] = {key: value for key, value in composed[group].items() if key not in DESCRIPTION_KEYS}
    return flat(composed), flat({group: keys for group, keys in extra.items() if isinstance(keys, dict)})
