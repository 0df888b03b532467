"""SGDP, the paper's drop-in optimizer: SGD followed by FTP."""

from typing import Any, Literal

import torch

from ftp_cl.optim.drop_in import DropIn, ParamGroups


class SGDP(DropIn, torch.optim.SGD):
    """SGD whose every step is followed by the projection; takes what the published SGDP takes.

    Groups, `k`, `exclude_set`, attributes and errors are those of `AdamP`.

    Args:
        params: one or several parameter groups with "params", "name" and optionally "pre".
        lr: step size of the weights; required, as published.
        momentum: of SGD.
        dampening: of the momentum.
        weight_decay: added to the gradient, as in torch's SGD. The radius votes with the plain gradient.
        nesterov: look-ahead momentum.
        k: factor in [0, 1] on votes that shrink a radius.
        exclude_set: names or shell patterns that are not projected.
        backend: "torch", "numba", "triton" or "auto", as in `FTP`.
        method: "paper", "exact" or "one_pass", as in `FTP`.
        options: further ones of torch.optim.SGD (foreach, fused, maximize).
    """

    def __init__(
        self,
        params: ParamGroups,
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        k: float = 1.0,
        exclude_set: set[str] | None = None,
        backend: str = "auto",
        method: Literal["paper", "exact", "one_pass"] = "paper",
        **options: Any,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            **options,
        )
        self._start_projection(k, exclude_set or set(), backend, method)
