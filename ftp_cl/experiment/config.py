"""From the words of a command line to one checked configuration."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class ConfigError(ValueError):
    """The configuration is wrong; the message is one sentence that names the key and what would be right."""


@dataclass(frozen=True)
class _Rule:
    """What a value must be: a type, and a condition in code and in words."""

    kinds: tuple[type, ...]
    holds: Callable[[Any], bool]
    words: str


def _number(holds: Callable[[Any], bool], words: str) -> _Rule:
    return _Rule((int, float), holds, words)


_OBJECTIVES = (
    *("average_accuracy", "average_incremental_accuracy", "average_forgetting", "backward_transfer"),
    *("learning_accuracy", "ood_average", "train_seconds", "step_seconds_median", "peak_memory_mb"),
)

_ABSENT = object()

_LOGGERS = ("tensorboard", "wandb", "mlflow")

_RULES = {
    "seed": _Rule((int,), lambda v: 0 <= v < 2**32, "a whole number from 0 to 2^32 - 1"),
    "train.epochs": _Rule((int,), lambda v: v >= 1, "a whole number of at least 1"),
    "train.batch_size": _Rule((int,), lambda v: v >= 1, "a whole number of at least 1"),
    "train.freeze_batch_norm": _Rule((bool,), lambda v: True, "true or false"),
    "train.softmax": _Rule((str,), lambda v: v in ("separated", "full"), "separated or full"),
    "train.augmentation": _Rule((str, type(None)), lambda v: v in (None, "weak", "shift"), "weak, shift or null"),
    "train.schedule": _Rule((str,), lambda v: v in ("cosine", "constant"), "cosine or constant"),
    "train.warmup": _number(lambda v: 0 <= v <= 1, "a number from 0 to 1"),
    "optimizer.name": _Rule((str,), lambda v: v in ("adamw", "sgd"), "adamw or sgd"),
    "optimizer.lr": _number(lambda v: v > 0, "a number above 0"),
    "optimizer.backbone_lr": _Rule((int, float, type(None)), lambda v: v is None or v > 0, "a number above 0, or null"),
    "optimizer.weight_decay": _number(lambda v: v >= 0, "a number of at least 0"),
    "optimizer.momentum": _number(lambda v: 0 <= v < 1, "a number from 0 to below 1"),
    "optimizer.fresh": _Rule((bool,), lambda v: True, "true or false"),
    "labels.per_class": _Rule(
        (int, type(None)), lambda v: v is None or v >= 1, "a whole number of at least 1, or null"
    ),
    "labels.fraction": _Rule(
        (int, float, type(None)), lambda v: v is None or 0 < v < 1, "a number between 0 and 1, or null"
    ),
    "labels.allow_fewer": _Rule((bool, type(None)), lambda v: True, "true, false or null"),
    "eval.batch_size": _Rule((int,), lambda v: v >= 1, "a whole number of at least 1"),
    "eval.stream": _Rule((str,), lambda v: v in ("test", "validation"), "test or validation"),
    "eval.ood_every": _Rule((str,), lambda v: v in ("end", "experience", "never"), "end, experience or never"),
    "resume": _Rule((bool,), lambda v: True, "true or false"),
    "checkpoint.every_minutes": _Rule(
        (int, float, type(None)), lambda v: v is None or v > 0, "a number above 0, or null"
    ),
    "checkpoint.every_iterations": _Rule(
        (int, type(None)), lambda v: v is None or v >= 1, "a whole number of at least 1, or null"
    ),
    "deterministic": _Rule((bool,), lambda v: True, "true or false"),
    "strategy": _Rule(
        (DictConfig, type(None)),
        lambda v: v is None or ":" in str(v.get("name")),
        "null, or {name: my_module:MyStrategy, option: 1}",
    ),
    "plugins": _Rule(
        (ListConfig,),
        lambda v: all(isinstance(entry, DictConfig) and "name" in entry for entry in v),
        "a list such as [{name: my_module:MyPlugin, option: 1}]",
    ),
    "loggers": _Rule((ListConfig,), lambda v: all(name in _LOGGERS for name in v), f"a list of {', '.join(_LOGGERS)}"),
    "objective": _Rule(
        (str, type(None)), lambda v: v is None or v in _OBJECTIVES, f"null or one of {', '.join(_OBJECTIVES)}"
    ),
    "save_weights": _Rule((bool,), lambda v: True, "true or false"),
    "threads": _Rule((int, type(None)), lambda v: v is None or v >= 1, "a whole number of at least 1, or null"),
}


def config_directory() -> Path:
    """Where the YAML files are, in a checkout and in an installed package."""
    return Path(str(files("ftp_cl.configs").joinpath("config.yaml"))).parent


def options_of(group: str) -> list[str]:
    """The names that `group=...` takes: benchmark, model or method."""
    return sorted(path.stem for path in (config_directory() / group).glob("*.yaml"))


def load_config(overrides: Sequence[str]) -> DictConfig:
    """Compose and check the configuration of one run.

    Args:
        overrides: Hydra's, as on the command line: `method=ftp`, `train.epochs=5`, `+model.img_size=64`.

    Raises:
        ConfigError: for an unknown group, choice or key, or a value of the wrong type or range.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory().resolve()), version_base="1.3"):
        try:
            config = compose("config", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error, overrides)) from error
    check(config)
    return config


def load_repeated(result: Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a finished run, to repeat it.

    Args:
        result: its result.json.
        overrides: `key=value` for keys that are to differ, as `out`.

    Raises:
        ConfigError: the file holds no configuration, or a key or value is wrong.
    """
    try:
        recorded = json.loads(result.read_text())["config"]
        root = OmegaConf.to_container(OmegaConf.load(config_directory() / "config.yaml"))
        assert isinstance(root, dict)
        config = OmegaConf.create({key: root[key] for key in root if key not in ("defaults", "hydra")})
        # Keys that are newer than the result have their defaults.
        defaults, own = OmegaConf.create({"out": None, "resume": False}), OmegaConf.create(recorded)
        config = OmegaConf.create(OmegaConf.to_container(OmegaConf.merge(config, own, defaults)))  # type: ignore
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{result} holds no configuration of a run ({error}).") from error
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or OmegaConf.select(config, key, default=_ABSENT) is _ABSENT:
            known = [str(key) for key in config]
            raise ConfigError(f"{key} is no key of the configuration{suggestion(key, known)}")
    merged = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(merged, DictConfig)
    check(merged)
    return merged


def check(config: DictConfig) -> None:
    """Check types and ranges of everything that is not an option of a benchmark, model or method.

    Raises:
        ConfigError: naming the first key that is wrong.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"{missing[0]} must be given: {missing[0]}=...")
    for key, rule in _RULES.items():
        value = OmegaConf.select(config, key)
        wrong_kind = not isinstance(value, rule.kinds) or (isinstance(value, bool) and bool not in rule.kinds)
        if wrong_kind or not rule.holds(value):
            raise ConfigError(f"{key}={value} is wrong: it must be {rule.words}.")


def plain(group: DictConfig) -> dict[str, Any]:
    """The keys of a part of the configuration, and their values without OmegaConf's types."""
    return {str(key): value for key, value in OmegaConf.to_container(group, resolve=True).items()}  # type: ignore[union-attr]


def call_with(function: Callable[..., Any], options: Mapping[str, Any], what: str, *args: Any) -> Any:
    """Call `function(*args, **options)`, where options are the keys below `what` in the configuration.

    Raises:
        ConfigError: for a key that the function does not take, naming the nearest it does, or one that it lacks.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in options:
        if key not in parameters and not takes_any:
            raise ConfigError(f"{what}.{key} is unknown{suggestion(key, list(parameters)[len(args) :])}")
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        raise ConfigError(f"{what} cannot be built: {error}.") from error
    return function(*args, **options)


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence in place of Hydra's paragraphs."""
    for override in overrides:
        match = re.fullmatch(r"(\+{0,2}|~)([\w./@]+)=(.*)", override, re.DOTALL)
        if match is None:
            return f"{override!r} is no override: write key=value, such as method=ftp or train.epochs=5."
        added, key, value = match[1], match[2], match[3]
        if key in ("benchmark", "model", "method") and value.strip("'\"") not in options_of(key):
            return f"{key}={value} is unknown{suggestion(value, options_of(key))}"
        known = _known_keys(overrides)
        if not added and key not in known and key not in {k.rsplit(".", 1)[0] for k in known}:
            return f"{key} is no key of the configuration{suggestion(key, known)}"
    return " ".join(str(error).split("\n")[0].split())


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All keys that the chosen groups have, dotted."""
    groups = [word for word in overrides if re.match(r"(benchmark|model|method)=", word)]
    keys: list[str] = []
    try:
        config = compose("config", groups)
    except (HydraException, OmegaConfBaseException):
        return keys
    pending: list[tuple[str, Any]] = [("", config)]
    while pending:
        prefix, node = pending.pop()
        for key in node:
            if OmegaConf.is_dict(node._get_node(key)):
                pending.append((f"{prefix}{key}.", node[key]))
            else:
                keys.append(f"{prefix}{key}")
    return keys


def suggestion(word: str, known: Sequence[str]) -> str:
    """The end of a sentence on an unknown word: the nearest known ones, or all in its section."""
    section, _, last = word.rpartition(".")
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    nearest = nearest or [key for key in known if key.rpartition(".")[2] == last]
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; there are {', '.join(sorted(key for key in known if key.startswith(section)))}."
