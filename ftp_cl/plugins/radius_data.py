"""The batches that radii are learned on: training, validation or replayed images of the present experience."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from avalanche.models.utils import avalanche_forward
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from torch.utils.data import DataLoader

from ftp_cl.plugins.stages import experiences_trained_on, joined, matching


def check_source(radius_data: str) -> None:
    """See that there is such a source.

    Raises:
        ValueError: naming those that there are.
    """
    if radius_data not in _SOURCES:
        raise ValueError(f"radius_data={radius_data!r} is unknown; choose one of {', '.join(_SOURCES)}.")


def radius_dataset(strategy: Any, radius_data: str) -> Any:
    """The dataset of that source for the strategy's present experience, with evaluation transforms.

    Raises:
        ValueError: if the strategy or its benchmark has none.
    """
    return _SOURCES[radius_data](strategy)


def endless_losses(strategy: Any, dataset: Any, skip: int = 0) -> Iterator[Tensor]:
    """The strategy's criterion on batch after batch, without end; its own random state keeps the run's undisturbed.

    Args:
        strategy: its model, in the mode that it is in.
        dataset: of Avalanche.
        skip: number of batches to pass over at first: those that a resumed run has seen.
    """
    loader = DataLoader(
        dataset,
        batch_size=strategy.train_mb_size,
        shuffle=True,
        collate_fn=getattr(dataset, "collate_fn", None),
        generator=torch.Generator().manual_seed(0),
    )
    for batch in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), skip, None):
        inputs, targets, task_labels = (part.to(strategy.device) for part in (batch[0], batch[1], batch[-1]))
        yield strategy._criterion(avalanche_forward(strategy.model, inputs, task_labels), targets)


def _training_data(strategy: Any) -> Any:
    return joined(experiences_trained_on(strategy)).eval()


def _validation_data(strategy: Any) -> Any:
    experiences = experiences_trained_on(strategy)
    streams = experiences[0].origin_stream.benchmark.streams
    for name in ("validation", "valid"):
        if name in streams:
            return joined(matching(experiences, streams[name], name)).eval()
    raise ValueError(
        f"radius_data='validation' needs a stream of that name; the benchmark has {', '.join(sorted(streams))}."
    )


def _replay_data(strategy: Any) -> Any:
    for plugin in strategy.plugins:
        if isinstance(plugin, ReplayPlugin):
            buffer = plugin.storage_policy.buffer
            return buffer.eval() if len(buffer) else _training_data(strategy)
    raise ValueError("radius_data='replay' needs a ReplayPlugin in the strategy's plugins.")


_SOURCES: dict[str, Callable[[Any], Any]] = {
    "train": _training_data,
    "validation": _validation_data,
    "replay": _replay_data,
}
