"""Whether a configuration is one: every key exists, and its value is of the kind that `ftp_cl.runs.schema` says.

Keys of benchmarks, models and methods are those of their files in configs/, whose defaults tell the kind of a value;
where they do not, `_KINDS` has it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ftp_cl.runs.catalogue import GROUPS, entry, options_of
from ftp_cl.runs.schema import (
    Choice,
    ConfigError,
    Configuration,
    Count,
    Crop,
    FilePath,
    Finite,
    Index,
    Keys,
    Positive,
    defaults,
    flat,
    in_words,
    shortened,
    suggestion,
)


class _Lora(Keys):
    rank: Count = 8
    alpha: Positive | None = None
    targets: str | list[str] | None = None


_KINDS_OF: dict[str, Any] = {
    "lora": Annotated[_Lora | None, "null, or {rank: 8, alpha: 16, targets: [query, value]}"],
    "dataset_root split_lists ood_root corruption_cache weights start": None | FilePath,
    "anchor": FilePath,
    "revision direction_dtype anchor_device anchor_dtype": None | str,
    "exclude train_domains": str | list,
    "corruptions": None | str | list,
    "ood_domains fixed_class_order class_names resize mean std": None | list,
    "n_experiences": None | Index | list,
    "size shots batch_size reanchor_every": None | Index,
    "interpolation": Literal["nearest", "bilinear", "bicubic", "lanczos"] | None,
    "crop_mode": Literal["center", "squash", "border"] | None,
    "model.crop": None | Crop,
    "colours": None | dict,
    "channels_last gradient_checkpointing": None | bool,
    "validation_fraction ema_decay": Finite | None,
    "label_percent": Finite,
}
_KINDS = {key: kind for keys, kind in _KINDS_OF.items() for key in keys.split()}
"""Of keys of benchmarks, models and methods whose default does not tell it; a method's crop is in pixels."""

_KIND_OF_DEFAULT: dict[type, Any] = {bool: bool, int: Index, float: Finite, str: str, list: list}


def check_configuration(values: Mapping[str, Any]) -> None:
    """Check that every key exists, and that its value is of the right kind and range.

    The ranges of what a benchmark, model or method takes are checked when it is built.

    Args:
        values: plain and resolved.

    Raises:
        ConfigError: naming the first key that is wrong, unknown ones first.
    """
    try:
        Configuration.model_validate(values)
    except ValidationError as error:
        found = [_place(one["loc"]) for one in error.errors(include_url=False, include_input=False)]
        path, kind = min(found, key=lambda place: place[1] is not None)
        key = ".".join(path)
        if kind is None:
            raise ConfigError(f"{key} is no key of the configuration{suggestion(key, flat(defaults()))}") from None
        value: Any = values
        for name in path:
            value = value.get(name)
        _refuse(
            key, value, f"have keys of its own, {key}.<key>=..." if _has_keys(kind) else f"be {in_words(kind)}", error
        )
    for group in GROUPS:
        _check_choice(group, values[group], group)
    _check_targets(values)
    if changes := values["labels"]["unlabelled"]:
        _check_choice("benchmark", {**values["benchmark"], **changes}, "labels.unlabelled", list(changes))


def _has_keys(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Keys | Choice)


def _place(where: tuple[int | str, ...]) -> tuple[list[str], Any]:
    """The key that an error is about, and its kind; None if there is no such key."""
    path: list[str] = []
    kind: Any = Configuration
    for name in map(str, where):
        if not _has_keys(kind):
            break
        path.append(name)
        kind = get_type_hints(kind, include_extras=True).get(name)
    return path, kind


def _refuse(key: str, value: Any, what: str, error: ValidationError) -> None:
    for one in error.errors(include_url=False, include_input=False):
        if one["type"] == "value_error":
            raise ConfigError(str(one["ctx"]["error"])) from None
    raise ConfigError(f"{key}={shortened(value)} is wrong: it must {what}.") from None


def _check_choice(group: str, options: Mapping[str, Any], where: str, only: Sequence[str] | None = None) -> None:
    """The name must exist, and keys that its file has must have values of the kind that they have there."""
    name = options.get("name")
    if not isinstance(name, str) or not (":" in name or name in options_of(group)):
        near = suggestion(shortened(name), options_of(group))
        raise ConfigError(f"{group}.name={shortened(name)} is unknown{near}")
    choice = None if ":" in name else entry(group, name)
    keys = {} if choice is None else {**choice.keys, **(choice.extra_keys or {})}
    if group == "model":
        keys["start"] = None
    for key in options if only is None else only:
        path, value = f"{where}.{key}", options[key]
        if str(key).startswith("_"):
            raise ConfigError(f"{path} is refused: it stands in the files that ship only.")
        if key == "seed" and group == "benchmark":
            raise ConfigError(f"{path} is refused: a benchmark gets the seed of the run, seed=...")
        if key not in keys:
            if choice is None or choice.extra_keys is None:
                continue
            near = suggestion(path, [f"{where}.{own}" for own in keys])
            raise ConfigError(f"{path} is no key of {group}={name}{near}")
        kind = _KINDS.get(f"{group}.{key}") or _KINDS.get(key) or _KIND_OF_DEFAULT.get(type(keys[key]), Any)
        try:
            _adapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            _refuse(path, value, f"be {in_words(kind)}", error)


def _check_targets(values: Mapping[str, Any]) -> None:
    """A model and a method must do what the benchmark asks: a class for each image, or for each pixel."""
    benchmark, *others = (
        None if ":" in values[group]["name"] else entry(group, values[group]["name"]) for group in GROUPS
    )
    if benchmark is None:
        return
    for choice in filter(None, others):
        if choice.masks != benchmark.masks and (benchmark.masks or choice.group == "model"):
            fitting = [name for name in options_of(choice.group) if entry(choice.group, name).masks == benchmark.masks]
            of, its = ("pixel", "image")[:: 1 if benchmark.masks else -1]
            raise ConfigError(
                f"{choice.group}={choice.name} is for a class of each {its}, and benchmark={benchmark.name} has one of "
                f"each {of}: use {', '.join(fitting)}."
            )


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
