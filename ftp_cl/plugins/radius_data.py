"""The batches that radii are learned on: training, validation or replayed images of the present experience."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from avalanche.models.utils import avalanche_forward
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor
from torch.utils.data import DataLoader

from ftp_cl.plugins.stages import experiences_trained_on, joined, matching

_SOURCES = ("train", "validation", "replay")


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
    if radius_data == "replay":
        replaying = next((plugin for plugin in strategy.plugins if isinstance(plugin, ReplayPlugin)), None)
        if replaying is None:
            raise ValueError("radius_data='replay' needs a ReplayPlugin in the strategy's plugins.")
        if len(replaying.storage_policy.buffer):
            return replaying.storage_policy.buffer.eval()
    experiences = experiences_trained_on(strategy)
    if radius_data == "validation":
        streams = experiences[0].origin_stream.benchmark.streams
        name = next((name for name in ("validation", "valid") if name in streams), None)
        if name is None:
            raise ValueError(
                f"radius_data='validation' needs a stream of that name; the benchmark has {', '.join(sorted(streams))}."
            )
        experiences = matching(experiences, streams[name], name)
    return joined(experiences).eval()


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
