"""Datasets of images with masks: what they have in common, and masks that show a part of the classes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ftp_cl.benchmarks._dataset import DerivedDataset, RebuildableDataset

IGNORED = 255
"""Value of pixels that no loss and no metric counts, as in PASCAL VOC."""

BACKGROUND = 0
"""The class of pixels that belong to nothing else."""


class MaskDataset(RebuildableDataset):
    """Images in memory, and for each a mask of class indices.

    An item is ``(image, mask)``: a PIL image in RGB, and an int64 tensor [height, width]. An image has no class of its
    own: ``targets`` calls all of them ``BACKGROUND``, so that what counts images of a class counts images.

    Subclasses set ``data``, ``masks`` and ``classes``.
    """

    data: np.ndarray
    """uint8 [N, height, width, 3]."""
    masks: np.ndarray
    """uint8 [N, height, width]; class indices and ``IGNORED``."""
    classes: Sequence[str]
    """The name of each class index; the first one is the background."""

    @property
    def targets(self) -> Sequence[int]:  # type: ignore[override]
        """``BACKGROUND`` for each image."""
        return [BACKGROUND] * len(self.masks)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return Image.fromarray(np.array(self.data[index])), torch.from_numpy(self.masks[index].astype(np.int64))

    def with_pixels_of(self, classes: Iterable[int]) -> list[int]:
        """Return the indices of the images that have a pixel of one of these classes."""
        wanted = np.zeros(256, bool)
        wanted[list(classes)] = True
        return [index for index, mask in enumerate(self.masks) if wanted[mask].any()]


class OneExperiencesMasks(DerivedDataset):
    """The same images with masks of some classes; pixels of all others are background, ignored ones stay so.

    The "overlapped" setting of class-incremental segmentation (Cermelli et al., "Modeling the Background", CVPR 2020,
    arXiv 2002.00718): an experience is annotated with its own classes alone, and neither earlier
    nor later ones are told from the background.

    Args:
        source: whose masks show all classes.
        shown: the class indices that these masks show.
    """

    def __init__(self, source: MaskDataset, shown: Sequence[int]) -> None:
        self.source, self.shown, self.classes = source, list(shown), source.classes
        self._values = np.full(256, BACKGROUND, np.uint8)
        self._values[[*self.shown, IGNORED]] = [*self.shown, IGNORED]

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image, mask = self.source[index]
        return image, torch.from_numpy(self._values[mask].astype(np.int64))
