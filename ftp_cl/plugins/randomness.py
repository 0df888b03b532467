"""The random states of a run: Python's, NumPy's and torch's generators, and those of the data loaders."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from avalanche.training.determinism.rng_manager import RNGManager

_LOADERS_OFFSET = 2**31  # any constant: the loaders' numbers must not be those that the model draws


def capture_random_state(device: torch.device | None = None) -> dict[str, Any]:
    """The state of the global generators, and of a GPU's, as plain values and tensors."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device is not None and device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """The inverse of `capture_random_state`, also on another GPU."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if (of_device := state.get("device")) is not None and device is not None and device.type == "cuda":
        torch.cuda.set_rng_state(of_device, device)


class LoaderRandomness:
    """Random states of their own for the data loaders: the order of batches, and random transforms.

    What a loader draws then does not depend on what the model draws between two batches (dropout, say). So the
    batches of an epoch can be gone through again without training, and methods are compared on the same batches.

    Attributes:
        state: of the generators, as `capture_random_state`; used by the next `use`.
    """

    def __init__(self, seed: int) -> None:
        outside = capture_random_state()
        of_devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []  # seeding reaches every one
        RNGManager.set_random_seeds((seed + _LOADERS_OFFSET) % 2**32)
        self.state = capture_random_state()
        restore_random_state(outside)
        if of_devices:
            torch.cuda.set_rng_state_all(of_devices)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Let everything inside draw from the loaders' generators."""
        outside = capture_random_state()
        restore_random_state(self.state)
        try:
            yield
        finally:
            self.state = capture_random_state()
            restore_random_state(outside)
