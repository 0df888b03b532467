"""The keys of a run's configuration: what each is and may be.

The table in docs/configuration.md is made from here. All keys are in one file, because they are one contract with users
and stored files; `check.py` beside it refuses what they do not allow.
"""

import difflib
import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ftp_cl.runs.catalogue import config_directory


class ConfigError(ValueError):
    """The configuration is wrong; the message is one sentence that names the key and what would be right."""


def expanded(path: str | Path) -> Path:
    """A path with the home directory in place of ~.

    Raises:
        ConfigError: of ~somebody who has none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} names the home directory of somebody who has none here.") from error


# ---- kinds of value: what pydantic checks, and the same in words ----------------------------------------------------

Count = Annotated[int, Field(ge=1, lt=2**31), "a whole number of at least 1 (below 2^31)"]
Index = Annotated[int, Field(ge=0, lt=2**31), "a whole number of at least 0 (below 2^31)"]
# Larger ones are infinite in float32 once an optimizer multiplies two of them.
Positive = Annotated[float, Field(gt=0, le=1e20), "a number above 0 (up to 1e20)"]
Weight = Annotated[float, Field(ge=0, le=1e10), "a number of at least 0 (up to 1e10)"]
Share = Annotated[float, Field(ge=0, le=1), "a number from 0 to 1"]
Crop = Annotated[float, Field(gt=0, le=2), "a share, above 0 (up to 2)"]
Finite = Annotated[float, Field(ge=0, le=1e20), "a number of at least 0 (up to 1e20)"]
FilePath = Annotated[str, AfterValidator(lambda path: expanded(path) and path), "text"]
Objective = Literal[
    "average_accuracy",
    "average_incremental_accuracy",
    "average_forgetting",
    "backward_transfer",
    "learning_accuracy",
    "ood_average",
    "train_seconds",
    "step_seconds_median",
    "peak_memory_mb",
]

_WORDS = {bool: "true, false", str: "text", list: "a list: [...]", dict: "keys and values: {...}", NoneType: "null"}


def in_words(kind: Any) -> str:
    """What a value of a kind must be: "a whole number of at least 1 or null"."""
    *most, last = _alternatives(kind)
    return f"{', '.join(most)} or {last}" if most else last


def _alternatives(kind: Any) -> list[str]:
    if get_origin(kind) is Annotated and isinstance(kind.__metadata__[-1], str):
        return [kind.__metadata__[-1]]
    if get_origin(kind) in (Union, UnionType):
        return [words for part in get_args(kind) for words in _alternatives(part)]
    if get_origin(kind) is Literal:
        return list(map(str, get_args(kind)))
    return _WORDS[get_origin(kind) or kind].split(", ")


# ---- the configuration ----------------------------------------------------------------------------------------------


class Keys(BaseModel):
    """A section that has these keys and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Choice(BaseModel):
    """A benchmark, model or method, whose file says which keys it has."""

    model_config = ConfigDict(extra="allow")


class _OwnPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    name: Annotated[str, Field(pattern=":")]


def _key(meaning: str) -> Any:
    return Field(description=meaning)


class Train(Keys):
    """Keys `train.*`."""

    epochs: Count = _key("passes over the training images of each experience")
    batch_size: Count = _key("images per step")
    freeze_batch_norm: bool = _key("true: BatchNorm keeps the running statistics of pretraining")
    softmax: Literal["separated", "full"] = _key(
        "separated: in training, classes of the current experience compete with each other only. full: with all seen "
        "classes, as in the papers of replay, DER, GEM and A-GEM"
    )
    augmentation: Literal["weak", "shift", "crop"] | None = _key(
        "random views of the training images. weak: half of them mirrored, and all shifted by up to an eighth of the "
        "side, as [FixMatch](https://arxiv.org/abs/2001.07685) does with labelled images. shift: shifted only, for "
        "digits and letters. crop: half of them mirrored, and 8 to 100 % of the area cut out (torchvision's "
        "RandomResizedCrop). Evaluation and imprinting see unchanged images"
    )
    rand_augment: str | None = _key("timm's RandAugment after `train.augmentation`, such as `rand-m9-mstd0.5-inc1`")
    mixup: Positive | None = _key(
        "alpha of [mixup](https://arxiv.org/abs/1710.09412); the share is drawn from Beta(alpha, alpha) for each batch"
    )
    accumulate: Count | None = _key(
        "number of parts in which a batch goes through the model before one step. It saves memory; gradients are the "
        "same but for rounding, BatchNorm's statistics, and what methods compute as a mean over images"
    )
    clip_norm: Positive | None = _key("largest norm of all gradients together; larger ones are scaled down")
    schedule: Literal["cosine", "constant", "cosine_per_epoch"] = _key(
        "learning rate within each experience. cosine falls after each iteration, cosine_per_epoch after each epoch"
    )
    select: Literal["validation"] | None = _key(
        "validation: each experience ends with the weights (and FTP's radii) of the epoch that is best on its "
        "validation images. null: with those of the last epoch"
    )
    warmup: Share = _key("share of an experience's iterations in which the learning rate rises from 0")


class Optimizer(Keys):
    """Keys `optimizer.*`."""

    name: Literal["adamw", "sgd"] = _key("the optimizer")
    lr: Positive = _key("learning rate of the head, and of the backbone unless `optimizer.backbone_lr` is given")
    backbone_lr: Positive | None = _key("learning rate of the backbone. null: `optimizer.lr`")
    weight_decay: Weight = _key("weight decay of all parameters")
    momentum: Annotated[float, Field(ge=0, lt=1), "a number from 0 to below 1"] = _key("momentum of sgd")
    nesterov: bool | None = _key("true: sgd takes Nesterov's momentum")
    layer_decay: Annotated[float, Field(gt=0, le=1), "a number above 0 (up to 1)"] | None = _key(
        "factor from each layer's learning rate to that of the layer below, in timm's order of layers. The head has "
        "`optimizer.lr`"
    )
    decay_1d: bool | None = _key("false: norms, biases and position embeddings have no weight decay")
    fused: bool | None = _key(
        "true: the fused step of torch's adamw, which FTP joins ([speed](speed.md)). Its rounding differs. null: on "
        "CUDA, unless `precision=fp16-mixed`"
    )
    fresh: bool = _key("true: each experience begins with a new optimizer state")


class Labels(Keys):
    """Keys `labels.*`."""

    per_class: Count | None = _key(
        "labelled training images per class and experience. The others become the stream `unlabelled` "
        "([few labels](few_labels.md))"
    )
    fraction: Annotated[float, Field(gt=0, lt=1), "a number between 0 and 1"] | None = _key(
        "the same as a share; at least one image per class"
    )
    allow_fewer: bool | None = _key(
        "true: a class with fewer images than `labels.per_class` keeps all its labels. Otherwise it is refused"
    )
    unlabelled: Annotated[dict[str, Any] | None, "null, or keys of the benchmark: {train_domains: [twemoji]}"] = _key(
        "unlabelled images come from the same benchmark with these keys: `+labels.unlabelled.train_domains=[twemoji]`"
    )


class Evaluation(Keys):
    """Keys `eval.*`."""

    batch_size: Count = _key("images per forward pass in evaluations")
    stream: Literal["test", "validation"] = _key("stream to evaluate on. Choose hyper-parameters on validation")
    ood_every: Literal["end", "experience", "never"] = _key("when the OOD streams are evaluated")
    ood_classes: Literal["own"] | None = _key(
        "own: predictions on an OOD stream are among its own classes, as in published numbers on ImageNet-A and -R. "
        "null: among all classes of the model. `ood_reference` is always among all"
    )


class Checkpoint(Keys):
    """Keys `checkpoint.*`."""

    every_minutes: Positive | None = _key(
        "minutes between checkpoints within an experience. Each experience ends with one"
    )
    every_iterations: Count | None = _key("iterations between checkpoints within an experience")


class Loader(Keys):
    """Keys `loader.*`."""

    workers: Annotated[int, Field(ge=0, le=1024), "a whole number from 0 to 1024"] | None = _key(
        "processes that load images, also in evaluation; as many more make the views of unlabelled images. null or "
        "0: the run's own process. Their number does not change the batches. Random views differ between none and "
        "any, because each image then has random numbers of its own ([timings](timings.md#a-runs-iterations))"
    )


class Configuration(Keys):
    """One run. The defaults stand in configs/config.yaml."""

    benchmark: Choice
    model: Choice
    method: Choice
    seed: Annotated[int, Field(ge=0, lt=2**32), "a whole number from 0 to 2^32 - 1"] = _key(
        "seed of class order, choice of shots, initial head and order of batches"
    )
    out: Annotated[
        Annotated[FilePath, Field(min_length=1)] | None, "a path, or null; out=./5 for one that is a number"
    ] = _key("run directory. null: below `runs/`, named by the overrides")
    label: Annotated[str | None, "text, or null; label='\"5\"' for one that is a number"] = _key(
        "name of the row in reports. null: the method and the keys that differ"
    )
    train: Train
    train_only: Annotated[str | list[str] | None, "null, a name or pattern, or a list of them"] = _key(
        "parameters of the backbone that are trained, by names or shell patterns: `train_only=['*.attn.qkv.*']`. The "
        "head always is. null: all"
    )
    optimizer: Optimizer
    labels: Labels
    eval: Evaluation
    resume: bool = _key("true: go on from the last checkpoint of an interrupted run")
    checkpoint: Checkpoint
    save_weights: bool = _key("true: keep the final weights in `weights.safetensors` and `backbone.safetensors`")
    objective: Objective | None = _key(
        "number of result.json that a sweeper optimises ([clusters](clusters.md#optuna))"
    )
    loader: Loader
    precision: Literal[32, "bf16-mixed", "fp16-mixed"] | None = _key(
        "precision of the backbone's passes, in training and evaluation. Weights, head, losses and the optimizer are "
        "in float32. fp16-mixed scales gradients, and waits for the device in each iteration. null: 32"
    )
    compile: bool | None = _key("true: torch.compile of the backbone. If it fails, the run says so and goes on without")
    tf32: bool | None = _key(
        "whether float32 matrix products and convolutions may take TensorFloat-32 on NVIDIA GPUs. null: torch's "
        "default, convolutions only"
    )
    device: Annotated[str, Field(min_length=1), "auto, cpu, cuda or a device such as cuda:1"] = _key(
        "auto: a GPU if there is one"
    )
    threads: Annotated[int, Field(ge=1, le=1024), "a whole number from 1 to 1024"] | None = _key(
        "CPU threads. null: torch's choice"  # far more than any machine has crash torch
    )
    deterministic: bool = _key("true: deterministic algorithms only")
    strategy: Annotated[_OwnPart | None, "null, or {name: my_module:MyStrategy, option: 1}"] = _key(
        "your own Avalanche strategy ([how](own_method.md)). null: `Naive`, to which methods add plugins"
    )
    plugins: Annotated[list[_OwnPart], "a list such as [{name: my_module:MyPlugin, option: 1}]"] = _key(
        "your own Avalanche plugins ([how](own_method.md))"
    )
    loggers: Annotated[list[Literal["tensorboard", "wandb", "mlflow"]], "a list of tensorboard, wandb, mlflow"] = _key(
        "where events go beside `metrics.jsonl`; each needs the extra of its name. W&B and MLflow follow their own "
        "environment variables (`WANDB_MODE`, `MLFLOW_TRACKING_URI`, ...). A resumed run is a new run there"
    )


NOT_IDENTITY = ("out", "label", "resume", "checkpoint", "save_weights", "loggers", "objective")
"""Keys that say where a run goes, what it is called, and what is kept of it; no number depends on them."""

SECTIONS = tuple(key for key, field in Configuration.model_fields.items() if field.annotation in Keys.__subclasses__())


_OF_MODELS = {
    "model.start": (
        "a path, or null",
        "null",
        "directory of an earlier run with `save_weights=true`, whose model, weights and head this one begins with; the "
        "other keys of the model are that run's. See [models.md](models.md#from-an-earlier-run)",
    ),
    "model.head": (
        "cosine, linear or saved",
        "cosine",
        "of `efficientnet_lite0`, `timm` and the like. cosine: a vector for each class, which begins as the mean of "
        "its images' features; saved: the head that is in `model.weights=path`, a `weights.safetensors` of a run",
    ),
}
"""Keys of models that the table has beside those of every run: values, default, meaning."""


@cache
def defaults() -> dict[str, Any]:
    """The keys of every run with their defaults; benchmark, model and method are not among them."""
    root: Any = OmegaConf.to_container(OmegaConf.load(config_directory() / "config.yaml"))
    return {str(key): value for key, value in root.items() if key not in ("defaults", "hydra")}


def shortened(value: Any) -> str:
    """A value as it is printed, as long as a sentence can have it."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by their keys down to single ones: train.epochs, ..."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return values


def suggestion(word: str, known: Collection[str]) -> str:
    """The end of a sentence on an unknown word: the nearest known one, or all in its section."""
    section, dot, last = word.rpartition(".")
    if beside := {key[len(section) + 1 :]: key for key in known if dot and key.startswith(section + dot)}:
        nearest = [beside[name] for name in difflib.get_close_matches(last, beside, n=1)]
        there = sorted(beside.values())
    else:
        there = sorted({key.partition(".")[0] for key in known})
        holding = [key for key in there if word in key]
        nearest = holding if len(holding) == 1 else difflib.get_close_matches(word, [*known, *there], n=1, cutoff=0.8)
    nearest = nearest or [key for key in known if key.rpartition(".")[2] == last]
    if nearest:
        return f"; did you mean {nearest[0]}?"
    if not there:
        return "."
    near = difflib.get_close_matches(word, known, n=1) if len(there) == len(known) else []  # single words, no keys
    proposal = f"; did you mean {near[0]}? There are " if near else "; there are "
    return f"{proposal}{', '.join(there)}."


def table_of_keys() -> str:
    """The table of docs/configuration.md, in Markdown."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key, value in flat(defaults()).items():
        kind: Any = Configuration
        for name in key.split("."):
            field, kind = kind.model_fields[name], get_type_hints(kind, include_extras=True)[name]
        shown = value if isinstance(value, str) else json.dumps(value)
        rows.append(f"| `{key}` | {in_words(kind)} | {shown} | {field.description} |".replace("|  |", "| |"))
    rows += [f"| `{key}` | {' | '.join(told)} |" for key, told in _OF_MODELS.items()]
    return "\n".join(rows)
