"""Keys that a run leaves to its model: which weights these are, and how images are made for them."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ftp_cl.models import Preprocessing
from ftp_cl.models.backbones import PACKAGED, models_preprocessing
from ftp_cl.models.hub import hub_weights, needs_network
from ftp_cl.models.preprocessing import recorded_size
from ftp_cl.runs.build import built
from ftp_cl.runs.catalogue import entry
from ftp_cl.runs.config import ConfigError, has_preprocessing, plain
from ftp_cl.runs.start import with_runs_model

_RESIZING = ("interpolation", "crop", "crop_mode")
_NORMALISATION = ("mean", "std")


def with_models_keys(config: DictConfig) -> DictConfig:
    """The configuration with what the model decides in place of null, so that the result has it.

    It is about models that have a preprocessing of their own; images of others are as the benchmark gives them.
    `revision` becomes the commit of the weights on the hub, which are downloaded once the benchmark was found.

    Raises:
        ConfigError: a key has no effect, or contradicts another.
        OSError: the weights, or data of the benchmark, cannot be had.
        ValueError: the architecture is unknown, or a value is out of range.
    """
    config = with_runs_model(config)
    model, benchmark = plain(config.model), plain(config.benchmark)
    if not has_preprocessing(model):
        if benchmark.get("size", 0) is None:
            raise ConfigError(
                f"benchmark.size=null is the size that the model's weights are for, and model={model['name']} says "
                "none: give a number of pixels."
            )
        return config
    architecture = model.get("architecture", model["name"])
    config = config.copy()
    for key, value in _images(architecture, model, benchmark).items():
        OmegaConf.update(config, f"{'benchmark' if key == 'size' else 'model'}.{key}", value, force_add=True)
    if architecture not in PACKAGED and model["weights"] is None and not model.get("start"):
        if "dataset_root" in benchmark and needs_network(architecture, model["revision"]):  # missing data is told first
            built("benchmark", {**with_preprocessing(plain(config.benchmark), config), "seed": config.seed})
        config.model.revision = hub_weights(architecture, model["revision"])[1]
    return config


def _images(architecture: str, model: dict[str, Any], benchmark: dict[str, Any]) -> dict[str, Any]:
    given = {key: model.get(key) for key in (*_RESIZING, *_NORMALISATION)}
    if ":" in benchmark["name"] or "size" not in entry("benchmark", benchmark["name"]).keys:
        without = [f"model.{key}" for key in _RESIZING if given[key] is not None]
        if without and not model.get("start"):  # of an earlier run, it had its effect there
            raise ConfigError(f"{without[0]} has no effect: benchmark={benchmark['name']} makes its images itself.")
        found = models_preprocessing(architecture, **given)
        values: dict[str, Any] = dict.fromkeys(_RESIZING)
    else:
        size, img_size = benchmark["size"], model.get("img_size")
        if None not in (size, img_size) and size != img_size:
            raise ConfigError(f"benchmark.size={size} and model.img_size={img_size} differ: give one of them.")
        found = models_preprocessing(architecture, size=size if img_size is None else img_size, **given)
        values = {"size": found.size, **{key: getattr(found, key) for key in _RESIZING}}
        if recorded_size(architecture) not in (None, found.size):
            values["img_size"] = found.size  # the model is built for one size
    return {**values, **{key: list(getattr(found, key)) for key in _NORMALISATION}}


def with_preprocessing(benchmark: dict[str, Any], config: DictConfig) -> dict[str, Any]:
    """The keys of a benchmark, its size replaced by the preprocessing of the run's model if that says how."""
    keys = plain(config.model)
    if not has_preprocessing(keys) or keys["interpolation"] is None:
        return benchmark
    values = {key: keys[key] for key in _RESIZING} | {key: tuple(keys[key]) for key in _NORMALISATION}
    return {**benchmark, "size": Preprocessing(benchmark["size"], **values)}
