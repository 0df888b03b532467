"""Penalties on the distance from an anchor, to be added to a loss."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from ftp_cl.optim.adapter_kinds import Adapter
from ftp_cl.optim.adapters import memory_of
from ftp_cl.projection.rows import as_rows, dense_rows


def l2_sp(weights: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor | float:
    """Half the squared Euclidean distance, ``1/2 sum |W - W0|^2``; 0.0 without tensors.

    Li, Grandvalet, Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (L2-SP), ICML
    2018, arXiv 1802.01483, section 3.

    Args:
        weights: by name; gradients go to them.
        anchor: the starting point of each, in the same shape.
    """
    return sum((0.5 * (weight - anchor[name]).square().sum() for name, weight in weights.items()), 0.0)


def l2_of_adapters(adapters: Iterable[Adapter]) -> Tensor | float:
    """`l2_sp` of adapters' changes around no change, 1/2 sum |dW|^2, without making dW; 0.0 without adapters.

    For dW = s B A it is s^2 / 2 times the sum of B^T B * A A^T, elementwise.

    Args:
        adapters: those whose change is one product of two factors; tied ones, over one memory, count once.
    """
    terms = []
    for adapter in {memory_of(adapter.factors()[0]) or adapter: adapter for adapter in adapters}.values():
        ((left, right),) = adapter.pairs()
        terms.append(0.5 * adapter.scale**2 * ((left.mT @ left) * (right @ right.mT)).sum())
    return sum(terms, 0.0)


def mars_sp(weights: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor | float:
    """The sum over tensors of the longest row of W - W0, in L1 (the MARS norm); 0.0 without tensors.

    The penalty of Gouk, Hospedales, Pontil, "Distance-Based Regularisation of Deep Networks for Fine-Tuning", ICLR
    2021, arXiv 2002.08253. Only the longest row of each tensor is pulled, as in the paper.

    Args:
        weights: by name; gradients go to them.
        anchor: the starting point of each, in the same shape.
    """
    changes = (weight - anchor[name] for name, weight in weights.items())
    return sum((as_rows(dense_rows(change)).abs().sum(dim=1).max() for change in changes), 0.0)
