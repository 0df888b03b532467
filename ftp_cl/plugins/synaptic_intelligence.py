"""Synaptic Intelligence beside a head that grows."""

from collections.abc import Mapping
from typing import Any

from avalanche.training.plugins import SynapticIntelligencePlugin
from avalanche.training.utils import ParamData


class SynapticIntelligence(SynapticIntelligencePlugin):
    """Avalanche's plugin (Zenke et al. 2017, arXiv 1703.04200), without the head: its bookkeeping follows no growth.

    On a CPU, Avalanche 0.6 keeps views of the weights where it means their values before a step and before an
    experience. They move with the weights, so that all importances are 0. Here they are copies.

    Args:
        si_lambda: factor of the penalty.
        eps: damping of the importances.
    """

    def __init__(self, si_lambda: float, eps: float = 1e-7) -> None:
        super().__init__(si_lambda, eps, excluded_parameters=["head"])

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember the weights."""
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Remember the weights."""
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"])


def _copy(parameters: Mapping[str, ParamData]) -> None:
    for parameter in parameters.values():
        parameter.data = parameter.data.clone()
