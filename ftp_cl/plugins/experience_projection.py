"""Projection once between two experiences, on batches of a chosen source: FTPPlugin's when="experience"."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.models.imprinting import evaluating
from ftp_cl.optim.post_hoc import project_post_hoc
from ftp_cl.plugins.anchor import take_anchor
from ftp_cl.plugins.radius_data import check_source, endless_losses, radius_dataset


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
        check_source(radius_data)
        if iterations < 1:
            raise ValueError(f"radius_iterations={iterations} learns no radius: it must be at least 1.")
        self.radius_data = radius_data
        self.iterations = iterations
        self.mu = mu
        self.summary: dict[str, dict[str, float]] = {}
        self._anchor: dict[str, Tensor] = {}

    def begin(self, weights: Mapping[str, nn.Parameter], given: Mapping[str, Tensor] | None) -> None:
        """Anchor those tensors that are not anchored yet: at the weights given by name, or at the current ones."""
        take_anchor(self._anchor, weights, given)

    def restart(self) -> None:
        """Forget the anchor; the next `begin` takes another."""
        self._anchor = {}

    def state_dict(self) -> dict[str, Any]:
        """The anchor and the latest summary."""
        return {"anchor": self._anchor, "summary": self.summary}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._anchor, self.summary = dict(state_dict["anchor"]), state_dict["summary"]

    def end(self, strategy: Any, weights: Mapping[str, nn.Parameter]) -> None:
        """Project the change since the anchor, in place.

        Raises:
            ValueError: if the source has no data for this experience.
        """
        anchored = {name: weight for name, weight in weights.items() if name in self._anchor}
        # Running statistics must not see these batches, and dropout would make the derivative noisy.
        with evaluating(strategy.model), torch.enable_grad():
            losses = endless_losses(strategy, radius_dataset(strategy, self.radius_data))
            self.summary = project_post_hoc(
                anchored, self._anchor, lambda: next(losses), iterations=self.iterations, mu=self.mu
            )
