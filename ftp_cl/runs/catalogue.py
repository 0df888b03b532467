"""What `benchmark=`, `model=` and `method=` take: a YAML file each in configs/, which names the code that it calls.

Beside the keys of a run, a file holds what is said of it and done with it, and what no run may change:

- `description`: one line for `ftp-cl list`.
- `_target_`: import path of what builds it; `_args_`: what that is given first. Without a target nothing is built.
- `extra_keys`: keys that `+group.key=value` may add, with their defaults; true for any.
- `masks`: true for benchmarks and models of a class for each pixel, and for methods that work on such too.
- `with_ftp` (methods): how `with=ftp` combines it with FTP. A sentence says why it does not. Otherwise a mapping, empty
  if it is not there: `order`, whether the hooks of FTP run before (the default: others then find projected weights when
  an experience ends) or after its own; `values` that differ from those of the two files; and the combination's `name`,
  ftp_<method> unless given. A key that both have, as `anchor`, is one key.

An experiment (`+experiment=`) changes keys of a run, and has a `description` too.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

GROUPS = ("benchmark", "model", "method")
"""Parts of the configuration that are chosen by name, each with keys of its own."""

PROJECTION = "ftp"
"""The method that others are combined with."""

DESCRIPTION_KEYS = ("description", "_target_", "_args_", "extra_keys", "with_ftp", "masks")
"""Of a file, which no run has."""


@dataclass(frozen=True)
class Combination:
    """How a method is combined with FTP; see the module's description of `with_ftp`."""

    name: str
    order: Literal["before", "after"] = "before"
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One choice of a group.

    Attributes:
        keys: those of a run, with their defaults; `name` is among them.
        target: None where there is nothing to build.
        extra_keys: those that may be added; None for any.
        with_ftp: how it is combined with FTP, or why it is not.
        masks: whether it gives, takes or learns a class for each pixel; of a model and a benchmark: no other.
    """

    group: str
    name: str
    description: str
    keys: dict[str, Any]
    target: str | None
    arguments: tuple[Any, ...]
    extra_keys: dict[str, Any] | None
    with_ftp: Combination | str
    masks: bool = False


def config_directory() -> Path:
    """Where the YAML files are, in a checkout and in an installed package."""
    return Path(str(files("ftp_cl.configs").joinpath("config.yaml"))).parent


@cache
def names(group: str) -> tuple[str, ...]:
    """What has a file: what a benchmark, model, method or experiment is called."""
    directory = config_directory() / group
    return tuple(sorted(path.relative_to(directory).with_suffix("").as_posix() for path in directory.rglob("*.yaml")))


@cache
def combinations() -> dict[str, str]:
    """Methods that are another one with FTP, and the other one: {"ftp_ewc": "ewc"}."""
    ways = {name: entry("method", name).with_ftp for name in names("method")}
    return {way.name: name for name, way in ways.items() if isinstance(way, Combination) and way.name != PROJECTION}


def options_of(group: str) -> list[str]:
    """The names that `group=...` takes."""
    return sorted([*names(group), *(combinations() if group == "method" else ())])


def experiment_description(name: str) -> str:
    """What an experiment is, in the sentence of its file."""
    file: Any = OmegaConf.load(config_directory() / "experiment" / f"{name}.yaml")
    return str(file.get("description", ""))


@cache
def entry(group: str, name: str) -> Entry:
    """The choice of that name; of a combination the method that is combined, with the keys of both."""
    if group == "method" and name not in names(group):
        return _combined(name)
    file: Any = OmegaConf.to_container(OmegaConf.load(config_directory() / group / f"{name}.yaml"))
    inherited = [entry(group, base) for base in file.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    about = {key: file.pop(key) for key in DESCRIPTION_KEYS if key in file}
    with_ftp = about.get("with_ftp", {})
    extra = about.get("extra_keys", {})
    return Entry(
        group,
        name,
        about["description"],
        {key: value for keys in (*(base.keys for base in inherited), file) for key, value in keys.items()},
        about.get("_target_"),
        tuple(about.get("_args_", ())),
        None if extra is True else extra,
        with_ftp if isinstance(with_ftp, str) else Combination(**{"name": f"{PROJECTION}_{name}", **with_ftp}),
        about.get("masks", False),
    )


def _combined(name: str) -> Entry:
    own, projection = entry("method", combinations()[name]), entry("method", PROJECTION)
    assert isinstance(own.with_ftp, Combination)
    return replace(
        own,
        name=name,
        description=f"{own.description.rstrip('.')}, with FTP.",
        keys={**projection.keys, **own.keys, **own.with_ftp.values, "name": name},
        extra_keys=None if own.extra_keys is None else {**(projection.extra_keys or {}), **own.extra_keys},
        with_ftp="it is a combination with FTP already",
    )


def combined(method: str, other: str) -> str:
    """The name of `method` with `other`, which is "ftp", or "null" for the method alone.

    Raises:
        ValueError: they are not combined; says why.
    """
    if other in ("null", "none"):
        return method
    if other != PROJECTION:
        raise ValueError(f"with={other} is unknown: it must be ftp or null.")
    way = entry("method", method).with_ftp if method in options_of("method") else None
    if isinstance(way, str):
        raise ValueError(f"method={method} with=ftp makes no sense: {way}.")
    return way.name if way is not None else method  # an unknown one is refused by its own name


@cache
def register_combinations() -> None:
    """Let Hydra compose `method=ftp_ewc` from the files of `ftp` and `ewc`."""
    for name, base in combinations().items():
        way = entry("method", base).with_ftp
        assert isinstance(way, Combination)
        node = {"defaults": [PROJECTION, base, "_self_"], **way.values, "name": name}
        ConfigStore.instance().store(group="method", name=name, node=node, provider="ftp_cl")
