"""Synaptic Intelligence beside a head that grows."""

from avalanche.training.plugins import SynapticIntelligencePlugin


class SynapticIntelligence(SynapticIntelligencePlugin):
    """Avalanche's plugin (Zenke et al. 2017, arXiv 1703.04200), without the head: its bookkeeping follows no growth.

    Args:
        si_lambda: factor of the penalty.
        eps: damping of the importances.
    """

    def __init__(self, si_lambda: float, eps: float = 1e-7) -> None:
        super().__init__(si_lambda, eps, excluded_parameters=["head"])
