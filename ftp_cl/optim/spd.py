"""AdamSPD, the drop-in optimizer of selective projection decay: Adam followed by SelectiveDecay."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ftp_cl.optim.anchored_step import AnchoredSteps, SelectiveDecay


class AdamSPD(torch.optim.Adam):
    """Adam with selective projection decay; takes what the published AdamSPD takes, and equals it step by step.

        optimizer = AdamSPD([{"params": parameters, "pre": anchors}], lr=1e-5, weight_decay=1.0)

    Source and rule: see `SelectiveDecay`. On another optimizer, attach `AnchoredSteps(SelectiveDecay(...), anchors)`.

    Args:
        params: one or several parameter groups with "params" and optionally "pre", as many anchors. A group without
            "pre" is trained by plain Adam: the head. Anchors ride in `state_dict()` with their group.
        lr: step size.
        betas: decay of Adam's moments.
        eps: added to Adam's denominator.
        weight_decay: lambda of the selective decay, also as a key of a group; 0 is plain Adam. No decay to zero is done.
        amsgrad: use the maximum of second moments.
        options: further ones of torch.optim.Adam (foreach, fused, maximize, capturable).

    Raises:
        ValueError: if "pre" and "params" of a group differ in length, or weight_decay is negative.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        groups = [dict(params)] if isinstance(params, Mapping) else list(params)
        self._decay = weight_decay
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=0.0, amsgrad=amsgrad, **options)
        self._follow()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, for a group with "params" and optionally "pre" and "weight_decay" (the selective one)."""
        group = dict(param_group)
        anchors = group.pop("pre", None)
        super().add_param_group({**group, "weight_decay": 0.0, "spd": group.get("weight_decay", self._decay)})
        added = self.param_groups[-1]
        if anchors is not None:
            added["pre"] = [anchors] if isinstance(anchors, torch.Tensor) else list(anchors)
            if len(added["pre"]) != len(added["params"]):
                raise ValueError(f'A group has {len(added["params"])} "params" but {len(added["pre"])} "pre".')
        if hasattr(self, "_steps"):
            self._follow()
