"""Tensors sorted by what a backend's compiled loops can work on together."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor

from ftp_cl.projection.backends import Pairs
from ftp_cl.projection.tensor_state import TensorState


def by_kind(
    pairs: Pairs,
    kind: Callable[[TensorState, Tensor], Hashable],
    run: Callable[[Pairs], Sequence[Any]],
    otherwise: Callable[[Pairs], Sequence[Any]],
) -> list[Any]:
    """Results of `run` for the pairs of each kind, and of `otherwise` for those of the kind None, in order."""
    of_pair = [kind(state, tensor) for state, tensor in pairs]
    if of_pair and of_pair[0] is not None and of_pair.count(of_pair[0]) == len(of_pair):
        return list(run(pairs))  # the usual case, without the work of sorting
    kinds: dict[Hashable, list[int]] = {}
    for i, own in enumerate(of_pair):
        kinds.setdefault(own, []).append(i)
    results: dict[int, Any] = {}
    for own, indices in kinds.items():
        chosen = [pairs[i] for i in indices]
        results.update(zip(indices, otherwise(chosen) if own is None else run(chosen), strict=True))
    return [results[i] for i in range(len(pairs))]
