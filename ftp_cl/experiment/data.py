"""The benchmark of a run: built, with the labels hidden and the images augmented that the configuration says."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from ftp_cl.benchmarks import build_benchmark
from ftp_cl.experiment.augmentation import augment_training
from ftp_cl.experiment.config import ConfigError, plain
from ftp_cl.experiment.imported import is_import_path, own_benchmark
from ftp_cl.experiment.labels import keep_few_labels
from ftp_cl.experiment.methods import NEED_UNLABELLED


def benchmark_of(config: DictConfig) -> tuple[Any, list[list[int]]]:
    """The benchmark to train on, and the labels that it hides from training.

    Raises:
        ConfigError: if keys do not fit the benchmark, or the method needs unlabelled images and there are none.
    """

    def build(changes: Mapping[str, Any]) -> Any:
        return _build({**plain(config.benchmark), **changes}, config.seed)

    benchmark, hidden = keep_few_labels(build, plain(config.labels), config.seed)
    if config.method.name in NEED_UNLABELLED and "unlabelled" not in benchmark.streams:
        raise ConfigError(f"method={config.method.name} needs unlabelled images: labels.per_class=4, for instance.")
    augment_training(benchmark, config.train.augmentation)
    return benchmark, hidden


def _build(options: dict[str, Any], seed: int) -> Any:
    name = options.pop("name")
    if is_import_path(name):
        return own_benchmark(name, options, seed)
    return build_benchmark(name, **options, seed=seed)
