"""AdamP, the paper's drop-in optimizer: AdamW followed by FTP."""

from typing import Any, Literal

import torch

from ftp_cl.optim.drop_in import DropIn, ParamGroups


class AdamP(DropIn, torch.optim.AdamW):
    """AdamW whose every step is followed by the projection; takes what the published AdamP takes.

        groups = [{"params": parameters, "pre": anchors, "name": names}]
        optimizer = AdamP(groups, lr=1e-3, k=1, exclude_set={"head.weight", "head.bias"})

    Unlike the published one, it keeps FTP's state in `state_dict()`, accepts parameters that appear later, and
    raises on names in `exclude_set` that do not exist.

    Args:
        params: one or several parameter groups with "params", "name" (as many names) and optionally "pre" (as many
            anchors; default: the weights right before the first step).
        lr: step size of the weights.
        betas: decay of Adam's moments.
        eps: added to Adam's denominator.
        weight_decay: decoupled, as in AdamW; 0 as published, because the ball already bounds the weights.
        amsgrad: use the maximum of second moments.
        k: factor in [0, 1] on votes that shrink a radius.
        exclude_set: names or shell patterns that are not projected.
        backend: "torch", "numba", "triton" or "auto", as in `FTP`.
        method: "paper", "exact" or "one_pass", as in `FTP`.
        options: further ones of torch.optim.AdamW (foreach, fused, maximize, capturable).

    Attributes:
        ftp: the attached `FTP`, with `radii()`, `summary()` and the rest.

    Raises:
        ValueError: for groups whose "params", "name" and "pre" differ in length, or names that do not exist.
    """

    def __init__(
        self,
        params: ParamGroups,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        k: float = 1.0,
        exclude_set: set[str] | None = None,
        backend: str = "auto",
        method: Literal["paper", "exact", "one_pass"] = "paper",
        **options: Any,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, **options)
        self._start_projection(k, exclude_set or set(), backend, method)
