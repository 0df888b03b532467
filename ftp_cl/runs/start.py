"""A model that begins as an earlier run left it: `model.start=RUN` takes the run's model, its weights and its head."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from torch import nn

from ftp_cl.models import ClassifierHead, ContinualClassifier
from ftp_cl.models.backbones import RANDOM, SAVED
from ftp_cl.models.dense import DenseModel
from ftp_cl.plugins import PrototypeClassifier
from ftp_cl.runs.build import built
from ftp_cl.runs.catalogue import combinations, entry
from ftp_cl.runs.config import ConfigError, load_repeated, plain
from ftp_cl.runs.directory import BACKBONE_FILE, CLASSES, WEIGHTS_FILE
from ftp_cl.runs.packing import load_resized
from ftp_cl.runs.records import RESULT_FILE
from ftp_cl.runs.schema import expanded

_PRETRAINED = ("ftp_cl.models.pretrained", "ftp_cl.models.dense.segmenter")


def with_runs_model(config: DictConfig) -> DictConfig:
    """The configuration with the model's keys of the run that it starts from, if it starts from one.

    Raises:
        ConfigError: the run cannot be read, is of a model by import path that was not named, other keys are given, or
            its method decides by more than its weights.
    """
    given = plain(config.model)
    start = given.pop("start", None)
    if start is None:
        return config
    run = load_repeated(expanded(start) / RESULT_FILE, [], trust=True)
    recorded = plain(run.model)
    recorded.pop("start", None)
    if ":" in recorded["name"] and given["name"] != recorded["name"]:
        raise ConfigError(
            f"{start} has a model that runs code which it names: add model=own model.name={recorded['name']} if you "
            "trust it."
        )
    method = run.method.name
    target = None if ":" in method else entry("method", combinations().get(method, method)).target
    if target is not None and issubclass(get_object(target), PrototypeClassifier):
        words = f": model.weights={start}/{BACKBONE_FILE} has its backbone"
        known = words if (expanded(start) / BACKBONE_FILE).exists() else ""
        raise ConfigError(f"{start} has method={method}, whose statistics are not in its weights{known}.")
    default = {} if ":" in given["name"] else entry("model", given["name"]).keys
    for key, value in given.items():
        if value != default.get(key) and value != recorded.get(key):
            raise ConfigError(
                f"model.{key}={value} contradicts model.start={start}, whose run has {recorded.get(key)}."
            )
    saved_classes(start)  # data of the benchmark need not be read first to see that there are no weights
    config = config.copy()
    OmegaConf.update(config, "model", {**recorded, "start": start}, merge=False, force_add=True)
    if config.benchmark.get("size", 0) is None:
        config.benchmark.size = run.benchmark.get("size") or entry("benchmark", config.benchmark.name).keys["size"]
    return config


def class_names(description: dict[str, Any]) -> list[str | None]:
    """The names of a benchmark's classes by their numbers, from what it says of itself."""
    pairs = (zip(part["classes"], part["names"], strict=True) for part in description.get("experiences", []))
    named = {int(number): str(name) for of_part in pairs for number, name in of_part}
    return [named.get(number) for number in range(max(named, default=-1) + 1)]


def started_model(keys: dict[str, Any], classes: Sequence[str | None]) -> Any:
    """The model of these keys; if it starts from a run, with its weights, and the numbers of `classes` in its head.

    Classes of the run that are none of `classes` come after them.

    Raises:
        ConfigError, OSError, ValueError: the model or its weights cannot be had.
    """
    start = keys.get("start")
    options = {key: value for key, value in keys.items() if key != "start"}
    if start is None:
        return built("model", options)
    if ":" not in options["name"] and entry("model", options["name"]).target in _PRETRAINED:
        options |= {"weights": RANDOM}  # all of them are read from the run
        if options.get("revision"):
            options["revision"] = None
        if options.get("head") == SAVED:
            with _weights(start) as file:
                options["head"] = "linear" if "head.classifier.weight" in file.keys() else "cosine"  # noqa: SIM118
    model = built("model", options)
    load_weights(model, start, [*classes, *kept_classes(keys, classes)])
    return model


def kept_classes(keys: dict[str, Any], classes: Sequence[str | None]) -> list[str | None]:
    """The classes that a model has from the run that it starts from and that are none of `classes`."""
    start = keys.get("start")
    return [] if start is None else [n for n in saved_classes(start) if n is not None and n not in classes]


def load_weights(model: nn.Module, run: str, classes: Sequence[str | None]) -> None:
    """Load a run's weights, head included, whose classes get their numbers in `classes`.

    Raises:
        ConfigError: the run has no weights, they do not fit, or the numbers in its head cannot be changed.
    """
    names = saved_classes(run)
    with _weights(run) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        load_resized(model, tensors)
    except ValueError as error:
        raise ConfigError(f"{expanded(run) / WEIGHTS_FILE} does not fit the run's model: {error}.") from error
    ours = model.modules() if isinstance(model, ContinualClassifier | DenseModel) else ()
    head = next((module for module in ours if isinstance(module, ClassifierHead)), None)
    rows = len(names) if head is None else head.num_classes
    numbers = [list(classes).index(name) for name in names[:rows] if name is not None]
    if numbers == list(range(len(numbers))):
        return
    if head is None:
        raise ConfigError(f"The classes of {run} have other numbers here, which only heads of this package can change.")
    used = set(numbers)
    free = (number for number in range(2 * max(rows, len(classes)) + 1) if number not in used)
    wanted = iter(numbers)
    head.renumber([next(wanted) if row < len(names) and names[row] is not None else next(free) for row in range(rows)])


def saved_classes(run: str) -> list[str | None]:
    """The names of the classes that a run's weights know, by their numbers.

    Raises:
        ConfigError: there are no weights, or they cannot be read.
    """
    with _weights(run) as file:
        found = (file.metadata() or {}).get(CLASSES)
        if found is None:  # of an earlier version
            return class_names(json.loads((expanded(run) / RESULT_FILE).read_bytes())["data"])
        names = json.loads(found)
        if not isinstance(names, list) or not all(name is None or isinstance(name, str) for name in names):
            raise ValueError("its classes are no list of names")
        return names


@contextmanager
def _weights(run: str) -> Iterator[Any]:
    """The file of a run's weights, to read from."""
    path = expanded(run) / WEIGHTS_FILE
    if not path.is_file():
        result = expanded(run) / RESULT_FILE
        raise ConfigError(
            f"{run} has no {WEIGHTS_FILE}: repeat it with ftp-cl run --from {result} save_weights=true out=..."
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
