"""The benchmark of a run: built, with the labels hidden and the images augmented that the configuration says."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from ftp_cl.benchmarks.tokens import load_tokenizer
from ftp_cl.runs.augmentation import augment_training
from ftp_cl.runs.build import built
from ftp_cl.runs.config import ConfigError, plain
from ftp_cl.runs.few_labels import keep_few_labels
from ftp_cl.runs.model_keys import with_preprocessing


def benchmark_of(config: DictConfig) -> tuple[Any, list[list[int]]]:
    """The benchmark to train on, and the labels that it hides from training.

    Raises:
        ConfigError: if keys do not fit the benchmark.
    """

    def build(changes: Mapping[str, Any]) -> Any:
        return _build(with_preprocessing({**plain(config.benchmark), **changes}, config), config.seed)

    benchmark, hidden = keep_few_labels(build, plain(config.labels), config.seed)
    augment_training(benchmark, config.train.augmentation, config.train.rand_augment)
    return benchmark, hidden


def check_tokens(benchmark: Any, model: Any) -> None:
    """Check that a benchmark of texts was tokenised for the model, where both say of which model.

    Raises:
        ConfigError: they have different vocabularies.
    """
    read, known = benchmark.description.get("tokenizer"), getattr(model, "pretrained", None)
    if read is None or known is None or read == known:
        return
    if load_tokenizer(read).get_vocab() != load_tokenizer(known).get_vocab():
        raise ConfigError(
            f"benchmark.tokenizer={read} has other tokens than model.pretrained={known}: give both alike."
        )


def _build(options: dict[str, Any], seed: int) -> Any:
    """Classes of a user's own benchmark are named by their numbers unless it has a `description`."""
    benchmark = built("benchmark", {**options, "seed": seed})
    if not hasattr(benchmark, "description"):
        classes = [sorted(map(int, experience.classes_in_this_experience)) for experience in benchmark.train_stream]
        benchmark.description = {
            "benchmark": options["name"],
            "experiences": [{"classes": own, "names": [str(label) for label in own]} for own in classes],
        }
    return benchmark
