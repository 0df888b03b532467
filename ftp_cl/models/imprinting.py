"""Features of the images of an experience, taken without leaving a trace in the model or in random generators."""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCH_SIZE = 64


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in evaluation mode, then give each submodule the mode that it had.

    ``module.train()`` afterwards would set BatchNorm layers that a user keeps in evaluation mode to training.
    """
    training = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for submodule, flag in training.items():
            submodule.training = flag


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Restore the generators of torch (CPU and ``device``), NumPy and Python afterwards.

    Evaluation transforms ought to draw nothing, but nothing keeps a user's from doing so.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def images_of(dataset: Any, classes: Collection[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (images [B, C, H, W], targets [B]) of ``classes`` in the order of ``dataset``.

    Args:
        dataset: Has ``targets``, and items that begin with (image, target), as the datasets of Avalanche.
        classes: Class ids; other items are not loaded.
    """
    wanted = [index for index, target in enumerate(dataset.targets) if int(target) in classes]
    for start in range(0, len(wanted), BATCH_SIZE):
        items = [dataset[index] for index in wanted[start : start + BATCH_SIZE]]
        yield torch.stack([item[0] for item in items]), torch.tensor([int(item[1]) for item in items])


@torch.no_grad()
def class_features(
    module: nn.Module, features: Callable[[Tensor], Tensor], dataset: Any, classes: Collection[int]
) -> tuple[Tensor, Tensor] | None:
    """Return features [N, D] and targets [N] of all images of ``classes`` in ``dataset``, or None if it has none.

    Memory: 4 N D bytes beside one batch.

    Args:
        module: Put in evaluation mode meanwhile; batches go to the device and dtype of its first parameter.
        features: Maps images [B, C, H, W] to features [B, D].
        dataset: See ``images_of``.
        classes: Class ids.
    """
    like = next(module.parameters())
    found: list[tuple[Tensor, Tensor]] = []
    with random_state_kept(like.device), evaluating(module):
        for images, targets in images_of(dataset, classes):
            # Integer images stay integers: the model refuses them, as it would in training.
            dtype = like.dtype if images.is_floating_point() else images.dtype
            found.append((features(images.to(like.device, dtype)), targets.to(like.device)))
    if not found:
        return None
    return torch.cat([batch for batch, _ in found]), torch.cat([targets for _, targets in found])
