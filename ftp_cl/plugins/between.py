"""Projection once between two experiences, on batches of a chosen source: FTPPlugin's when="experience"."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.models.utils import avalanche_forward
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ftp_cl.models.imprinting import evaluating
from ftp_cl.optim.once import project_once


class ExperienceProjection:
    """Remembers the weights that an experience starts from, and projects the whole change when it has ended.

    Args:
        radius_data: "train", "validation" or "replay": where the batches come from that the radii are learned on.
        iterations: number of such batches.
        mu: Adam's step size for the radii.

    Attributes:
        summary: of the latest projection, per tensor; as `FTP.summary`.

    Raises:
        ValueError: for an unknown source, or fewer than one iteration.
    """

    def __init__(self, radius_data: str, iterations: int, mu: float) -> None:
        if radius_data not in _SOURCES:
            raise ValueError(f"radius_data={radius_data!r} is unknown; choose one of {', '.join(_SOURCES)}.")
        if iterations < 1:
            raise ValueError(f"radius_iterations={iterations} learns no radius: it must be at least 1.")
        self.radius_data = radius_data
        self.iterations = iterations
        self.mu = mu
        self.summary: dict[str, dict[str, float]] = {}
        self._anchor: dict[str, Tensor] = {}

    def begin(self, weights: Mapping[str, nn.Parameter], given: Mapping[str, Tensor] | None) -> None:
        """Anchor those tensors that are not anchored yet: at the weights given by name, or at the current ones."""
        for name, weight in weights.items():
            if name not in self._anchor or self._anchor[name].shape != weight.shape:
                source = weight.detach() if given is None or name not in given else given[name].to(weight)
                self._anchor[name] = source.clone()

    def restart(self) -> None:
        """Forget the anchor; the next `begin` takes another."""
        self._anchor = {}

    def end(self, strategy: Any, weights: Mapping[str, nn.Parameter]) -> None:
        """Project the change since the anchor, in place.

        Raises:
            ValueError: if the source has no data for this experience.
        """
        if isinstance(strategy.experience, OnlineCLExperience):
            raise ValueError("when='experience' has no end of an experience in an online stream; use when='step'.")
        anchored = {name: weight for name, weight in weights.items() if name in self._anchor}
        # Running statistics must not see these batches, and dropout would make the derivative noisy.
        with evaluating(strategy.model), torch.enable_grad():
            losses = _losses(strategy, _SOURCES[self.radius_data](strategy))
            self.summary = project_once(
                anchored, self._anchor, lambda: next(losses), iterations=self.iterations, mu=self.mu
            )


def _losses(strategy: Any, dataset: Any) -> Iterator[Tensor]:
    """The strategy's criterion on batch after batch, without end; its own random state keeps the run's undisturbed."""
    loader = DataLoader(
        dataset,
        batch_size=strategy.train_mb_size,
        shuffle=True,
        collate_fn=getattr(dataset, "collate_fn", None),
        generator=torch.Generator().manual_seed(0),
    )
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        inputs, targets, task_labels = (part.to(strategy.device) for part in (batch[0], batch[1], batch[-1]))
        yield strategy._criterion(avalanche_forward(strategy.model, inputs, task_labels), targets)


def _training_data(strategy: Any) -> Any:
    return strategy.experience.dataset.eval()


def _validation_data(strategy: Any) -> Any:
    streams = strategy.experience.origin_stream.benchmark.streams
    for name in ("validation", "valid"):
        if name in streams:
            return streams[name][strategy.experience.current_experience].dataset.eval()
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
