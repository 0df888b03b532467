"""What a run learns and counts: one class for an image, one for each pixel, or a normal for each pixel."""

import warnings
from typing import Any

from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from ftp_cl.metrics.mask_record import MaskCounts
from ftp_cl.metrics.normal_record import NormalCounts
from ftp_cl.metrics.plugins import PredictionCounts, StreamCounts
from ftp_cl.models.dense import DenseModel
from ftp_cl.plugins import SeparatedSoftmax
from ftp_cl.plugins.pixel_loss import NormalLoss, PixelCrossEntropy, SeparatedPixels
from ftp_cl.runs.config import ConfigError


def counts_for(benchmark: Any, ood_classes: str | None = None) -> StreamCounts:
    """The metric that a benchmark's targets are counted with, as its description tells.

    Args:
        benchmark: of Avalanche.
        ood_classes: "own": predictions in an OOD stream are among its own classes.

    Raises:
        ConfigError: pixels have no classes of their own in an OOD stream.
    """
    target = benchmark.description.get("target")
    if target is not None and ood_classes is not None:
        raise ConfigError(
            f"eval.ood_classes={ood_classes} is for a class of each image, and this benchmark has pixels."
        )
    if target == "masks":
        return MaskCounts(len(benchmark.description["class_names"]))
    if target == "normals":
        return NormalCounts()
    counts = PredictionCounts()
    if ood_classes is not None:
        counts.classes_of = {name: about["classes"] for name, about in benchmark.description.get("ood", {}).items()}
    return counts


def evaluator_for(counts: StreamCounts) -> EvaluationPlugin:
    """Avalanche's evaluation with this metric alone; who evaluates reads its record."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")
        return EvaluationPlugin(counts)


def check_outputs(model: nn.Module, counts: StreamCounts) -> None:
    """See that a model for pixels gives what the benchmark asks.

    Raises:
        ConfigError: it gives masks where normals are asked, or the other way round.
    """
    asked = "normals" if isinstance(counts, NormalCounts) else "masks"
    if isinstance(model, DenseModel) and model.outputs != asked:
        raise ConfigError(f"model.outputs={model.outputs} does not fit the benchmark: use model.outputs={asked}.")


def criterion_for(counts: StreamCounts) -> nn.Module:
    """The loss of these targets."""
    if isinstance(counts, MaskCounts):
        return PixelCrossEntropy()
    return NormalLoss() if isinstance(counts, NormalCounts) else nn.CrossEntropyLoss()


def separating(counts: StreamCounts) -> list[Any]:
    """The plugins that let current classes compete with each other only; normals have no classes."""
    if isinstance(counts, MaskCounts):
        return [SeparatedPixels()]
    return [] if isinstance(counts, NormalCounts) else [SeparatedSoftmax()]
