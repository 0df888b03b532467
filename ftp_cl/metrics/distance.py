"""How far weights have moved."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def distance_from_anchor(weights: Mapping[str, "Tensor"], anchors: Mapping[str, "Tensor"]) -> dict[str, float]:
    """Return the Euclidean distance of each weight tensor from its anchor.

    d = ||W - W0||_2 over all entries of the tensor. Where a tensor has grown along dimension 0 (a head with new
    classes), its first rows are compared with the anchor's. Tensors without an anchor are left out, and so are those
    whose shape differs otherwise.

    Args:
        weights: name -> W.
        anchors: name -> W0.

    Returns:
        Name -> distance, in the unit of the weights.
    """
    distances = {}
    for name, tensor in weights.items():
        anchor = anchors.get(name)
        if anchor is None or anchor.ndim != tensor.ndim:
            continue
        rows = tensor.detach()[: len(anchor)] if anchor.ndim else tensor.detach()
        if rows.shape == anchor.shape:
            distances[name] = float((rows.double() - anchor.to(rows.device).double()).norm())
    return distances
