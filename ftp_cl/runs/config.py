"""From the words of a command line to one checked configuration."""

import difflib
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
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


class ConfigError(ValueError):
    """The configuration is wrong; the message is one sentence that names the key and what would be right."""


@dataclass(frozen=True)
class _Rule:
    """What a value must be: a type, and a condition in code and in words."""

    kinds: tuple[type, ...]
    holds: Callable[[Any], bool]
    words: str


def _count(words: str = "a whole number of at least 1", *others: type) -> _Rule:
    return _Rule((int, *others), lambda v: v is None or 1 <= v < 2**31, words)


def _number(holds: Callable[[Any], bool], words: str, *others: type) -> _Rule:
    return _Rule((int, float, *others), lambda v: v is None or (math.isfinite(v) and holds(v)), words)


_OBJECTIVES = (
    *("average_accuracy", "average_incremental_accuracy", "average_forgetting", "backward_transfer"),
    *("learning_accuracy", "ood_average", "train_seconds", "step_seconds_median", "peak_memory_mb"),
)

_ABSENT = object()

_LOGGERS = ("tensorboard", "wandb", "mlflow")

_MOST_THREADS = 1024  # more than any machine has cores; tens of thousands crash torch

_RULES = {
    "seed": _Rule((int,), lambda v: 0 <= v < 2**32, "a whole number from 0 to 2^32 - 1"),
    "out": _Rule((str, type(None)), lambda v: v != "", "a path, or null; out=./5 for one that is a number"),
    "label": _Rule((str, type(None)), lambda v: True, "text, or null; label='\"5\"' for one that is a number"),
    "train.epochs": _count(),
    "train.batch_size": _count(),
    "train.freeze_batch_norm": _Rule((bool,), lambda v: True, "true or false"),
    "train.softmax": _Rule((str,), lambda v: v in ("separated", "full"), "separated or full"),
    "train.augmentation": _Rule((str, type(None)), lambda v: v in (None, "weak", "shift"), "weak, shift or null"),
    "train.schedule": _Rule((str,), lambda v: v in ("cosine", "constant"), "cosine or constant"),
    "train.warmup": _number(lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "optimizer.name": _Rule((str,), lambda v: v in ("adamw", "sgd"), "adamw or sgd"),
    "optimizer.lr": _number(lambda v: v > 0, "a number above 0"),
    "optimizer.backbone_lr": _number(lambda v: v > 0, "a number above 0, or null", type(None)),
    "optimizer.weight_decay": _number(lambda v: v >= 0, "a number of at least 0"),
    "optimizer.momentum": _number(lambda v: 0 <= v < 1, "a number from 0 to below 1"),
    "optimizer.fresh": _Rule((bool,), lambda v: True, "true or false"),
    "labels.per_class": _count("a whole number of at least 1, or null", type(None)),
    "labels.fraction": _number(lambda v: 0 < v < 1, "a number between 0 and 1, or null", type(None)),
    "labels.unlabelled": _Rule(
        (DictConfig, type(None)), lambda v: True, "null, or keys of the benchmark: {train_domains: [twemoji]}"
    ),
    "labels.allow_fewer": _Rule((bool, type(None)), lambda v: True, "true, false or null"),
    "eval.batch_size": _count(),
    "eval.stream": _Rule((str,), lambda v: v in ("test", "validation"), "test or validation"),
    "eval.ood_every": _Rule((str,), lambda v: v in ("end", "experience", "never"), "end, experience or never"),
    "resume": _Rule((bool,), lambda v: True, "true or false"),
    "checkpoint.every_minutes": _number(lambda v: v > 0, "a number above 0, or null", type(None)),
    "checkpoint.every_iterations": _count("a whole number of at least 1, or null", type(None)),
    "device": _Rule((str,), lambda v: v != "", "auto, cpu, cuda or a device such as cuda:1"),
    "deterministic": _Rule((bool,), lambda v: True, "true or false"),
    "strategy": _Rule(
        (DictConfig, type(None)),
        lambda v: v is None or ":" in str(v.get("name")),
        "null, or {name: my_module:MyStrategy, option: 1}",
    ),
    "plugins": _Rule(
        (ListConfig,),
        lambda v: all(isinstance(entry, DictConfig) and ":" in str(entry.get("name")) for entry in v),
        "a list such as [{name: my_module:MyPlugin, option: 1}]",
    ),
    "loggers": _Rule((ListConfig,), lambda v: all(name in _LOGGERS for name in v), f"a list of {', '.join(_LOGGERS)}"),
    "objective": _Rule(
        (str, type(None)), lambda v: v is None or v in _OBJECTIVES, f"null or one of {', '.join(_OBJECTIVES)}"
    ),
    "save_weights": _Rule((bool,), lambda v: True, "true or false"),
    "threads": _Rule(
        (int, type(None)),
        lambda v: v is None or 1 <= v <= _MOST_THREADS,
        f"a whole number from 1 to {_MOST_THREADS}, or null",
    ),
}

_ABOUT_FILES = re.compile(r"_target_|_args_|_partial_|\b(method|model|benchmark)\.(description|extra_keys|with_ftp)\b")

_KIND_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list: [...]",
    type(None): "null",
}

# Keys that name a file or directory, in which ~ is the home directory.
_PATHS = (
    *("out", "benchmark.dataset_root", "benchmark.split_lists", "benchmark.corruption_cache"),
    *("model.weights", "method.anchor"),
)

# Kinds of value that keys of the groups take beside that of their default in configs/.
_OTHER_KINDS: dict[str, tuple[type, ...]] = {
    "batch_size": (int,),
    "corruption_cache": (str,),
    "corruptions": (str, list),
    "dataset_root": (str,),
    "ema_decay": (type(None),),
    "exclude": (list,),
    "label_percent": (float,),
    "ood_domains": (list,),
    "shots": (int,),
    "split_lists": (str,),
    "validation_fraction": (float, type(None)),
}


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Compose and check the configuration of one run.

    Args:
        overrides: Hydra's, as on the command line: `method=ftp`, `train.epochs=5`, `+model.img_size=64`.

    Raises:
        ConfigError: for an unknown group, choice or key, or a value of the wrong type or range.
    """
    for override in overrides:
        if re.match(r"[+~]*hydra[./=]", override):
            raise ConfigError(f"{override} is for many runs: use it with ftp-cl run -m.")
    overrides = prepared(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory().resolve()), version_base="1.3"):
        try:
            config = compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error, overrides)) from error
    drop_descriptions(config)
    check(config)
    return config


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
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(f"{override} cannot be read: {_first_line(error)}.") from None
    if parsed.is_discrete_sweep() and parsed.is_choice_sweep():
        return [str(value) for value in parsed.sweep_string_iterator()]
    return [override.partition("=")[2].strip("'\"")]


def drop_descriptions(config: DictConfig) -> None:
    """Leave the keys of a run: what a file says of itself is no key of it."""
    for group in GROUPS:
        if isinstance(config.get(group), DictConfig):
            keys = [str(key) for key in config[group] if key not in DESCRIPTION_KEYS]
            config[group] = OmegaConf.masked_copy(config[group], keys)


@cache
def _root() -> dict[str, Any]:
    """The keys of every run with their defaults; the groups are not among them."""
    root = OmegaConf.to_container(OmegaConf.load(config_directory() / "config.yaml"))
    assert isinstance(root, dict)
    return {str(key): value for key, value in root.items() if key not in ("defaults", "hydra")}


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

    try:
        recorded = literal(json.loads(read_file(result))["config"])
        # Keys that are newer than the result have their defaults.
        config = OmegaConf.merge(_root(), recorded, {"out": None, "resume": False})
        assert isinstance(config, DictConfig)
        check(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OmegaConfBaseException) as error:
        raise ConfigError(f"{result} holds no configuration of a run ({_first_line(error)}).") from error
    if not trust and (named := _import_paths(plain(config))):
        raise ConfigError(f"{result} runs code that it names, {', '.join(named)}: add --trust if you trust its source.")
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            raise ConfigError(f"{key} is no key of the configuration{suggestion(key, _dotted(config))}")
        if isinstance(OmegaConf.select(config, key), DictConfig) and key in (*GROUPS, *_sections()):
            raise ConfigError(
                f"{override} is too much for --from, which changes single keys, such as {_dotted(config[key], key)[0]}."
            )
    merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(merged, DictConfig)
    check(merged)
    return merged


def _import_paths(config: dict[str, Any]) -> list[str]:
    """The user's own parts that a configuration names: `model.name=my_parts:MyModel`, ..."""
    parts = [(key, config[key]) for key in (*GROUPS, "strategy") if config[key]]
    parts += [("plugins", plugin) for plugin in config["plugins"]]
    return [f"{key}.name={part['name']}" for key, part in parts if ":" in part["name"]]


def literal(node: Any) -> Any:
    """The same values, with what OmegaConf would take for interpolations in them escaped."""
    if isinstance(node, dict):
        return {key: literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def expanded(path: str | Path) -> Path:
    """A path with the home directory in place of ~.

    Raises:
        ConfigError: of ~somebody who has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} names the home directory of somebody who has none here.") from error


def check(config: DictConfig) -> None:
    """Resolve references between keys, and check that every key exists, and types and ranges.

    The ranges of what a benchmark, model or method takes are checked when it is built.

    Raises:
        ConfigError: naming the first key that is wrong.
    """
    try:
        config.update(literal(plain(config)))  # resolving it once more changes nothing
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {_first_line(error)}.") from error
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{missing[0]} must be given: {missing[0]}=...")
    for key in (*GROUPS, *_sections()):
        if not isinstance(config.get(key), DictConfig):
            raise ConfigError(f"{key}={config.get(key)} is wrong: it must have keys of its own, {key}.<key>=...")
    _check_keys(config)
    for key, rule in _RULES.items():
        value = OmegaConf.select(config, key)
        wrong_kind = not isinstance(value, rule.kinds) or (isinstance(value, bool) and bool not in rule.kinds)
        if wrong_kind or not rule.holds(value):
            raise ConfigError(f"{key}={value} is wrong: it must be {rule.words}.")
    for group in GROUPS:
        _check_group(group, plain(config[group]))
    for key in _PATHS:
        if isinstance(path := OmegaConf.select(config, key), str):
            expanded(path)


def _check_keys(config: DictConfig) -> None:
    """Every key but those of the groups must be one of config.yaml."""
    known = _dotted(_root())
    for key in config:
        if key in _sections():
            names, here = [f"{key}.{name}" for name in config[key]], [f"{key}.{name}" for name in _root()[str(key)]]
        else:
            names, here = [str(key)], [*_root(), *GROUPS]
        for name in names:
            if name not in here:
                raise ConfigError(f"{name} is no key of the configuration{suggestion(name, known)}")


def _check_group(group: str, options: dict[str, Any]) -> None:
    """The name must exist, and keys that its file has must have values of the kind that they have there."""
    name = options.get("name")
    if not isinstance(name, str) or not (":" in name or name in options_of(group)):
        raise ConfigError(f"{group}.name={name} is unknown{suggestion(str(name), options_of(group))}")
    for key in options:
        if key.startswith("_"):
            raise ConfigError(f"{group}.{key} is refused: it stands in the files that ship only.")
    if ":" in name:
        return
    known = entry(group, name)
    for key, value in options.items():
        if key not in known.keys:
            if known.extra_keys is None:
                continue
            if key not in known.extra_keys:
                near = suggestion(f"{group}.{key}", [f"{group}.{own}" for own in (*known.keys, *known.extra_keys)])
                raise ConfigError(f"{group}.{key} is no key of {group}={name}{near}")
        default = {**known.keys, **(known.extra_keys or {})}[key]
        kinds = dict.fromkeys((type(default), *_OTHER_KINDS.get(key, ())))
        if default != "???" and list(kinds) != [type(None)]:
            _check_kind(f"{group}.{key}", value, list(kinds))


def _check_kind(key: str, value: Any, kinds: Sequence[type]) -> None:
    is_number = type(value) in (int, float)
    if type(value) in kinds or (is_number and float in kinds):
        if is_number and not 0 <= value < math.inf:
            raise ConfigError(f"{key}={value} is wrong: it must be a finite number of at least 0.")
        return
    raise ConfigError(f"{key}={value} is wrong: it must be {' or '.join(_KIND_WORDS[kind] for kind in kinds)}.")


def _sections() -> list[str]:
    return [key for key, value in _root().items() if isinstance(value, dict)]


def _dotted(node: Any, prefix: str = "") -> list[str]:
    """The keys of a configuration down to single values: train.epochs, ..."""
    keys: list[str] = []
    for key in node:
        own = f"{prefix}.{key}" if prefix else str(key)
        value = node._get_node(key) if OmegaConf.is_dict(node) else node[key]
        is_part = isinstance(value, dict) or (OmegaConf.is_dict(value) and not value._is_none())
        keys += _dotted(value, own) if is_part else [own]
    return keys


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


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


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence in place of Hydra's paragraphs."""
    for override in overrides:
        match = re.fullmatch(r"(\+{0,2}|~)([\w./@]+)=(.*)", override, re.DOTALL)
        if match is None:
            return f"{override!r} is no override: write key=value, such as method=ftp or train.epochs=5."
        added, key, value = match[1], match[2], match[3]
        if _has_several_values(override):
            return f"{override} has several values: ftp-cl run -m runs each of them."
        if key in (*GROUPS, "experiment"):
            if value.strip("'\"") not in options_of(key):
                return f"{override} is unknown{suggestion(value, options_of(key))}"
            if key == "experiment" and not added:
                return f"{override} needs a plus sign: +{override}."
            continue
        known = _known_keys(overrides)
        if known and not added and key not in known and key not in {k.rsplit(".", 1)[0] for k in known}:
            return f"{key} is no key of the configuration{suggestion(key, known)}"
        quoted = f"{added}{key}='{value}'"
        if value[:1] not in "[{" and not _is_readable(override) and _is_readable(quoted):
            return f'{override} cannot be read: quote what has special characters, as in "{quoted}".'
    return _first_line(error) + "."


def _is_readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _has_several_values(override: str) -> bool:
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All keys that the chosen groups have, dotted."""
    groups = [word for word in overrides if word.partition("=")[0] in GROUPS]
    try:
        return _dotted(compose("config", groups))
    except (HydraException, OmegaConfBaseException):
        return []


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of a sentence on an unknown word: the nearest known one, or all in its section."""
    section, dot, last = word.rpartition(".")
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    nearest = nearest or [key for key in known if key.rpartition(".")[2] == last]
    if nearest:
        return f"; did you mean {nearest[0]}?"
    there = [key for key in known if dot and key.startswith(section + dot)] or {key.partition(".")[0] for key in known}
    return f"; there are {', '.join(sorted(there))}." if there else "."
