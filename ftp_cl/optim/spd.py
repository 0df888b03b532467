"""AdamSPD, the drop-in optimizer of selective projection decay: Adam followed by SelectiveDecay."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ftp_cl.optim.step_rules import AnchoredSteps, SelectiveDecay


class AdamSPD(torch.optim.Adam):
    """Adam with selective projection decay; takes what the published AdamSPD takes, and equals it step by step.

        optimizer = AdamSPD([{"params": parameters, "pre": anchors}], lr=1e-5, weight_decay=1.0)

    Source and rule: see `SelectiveDecay`. On another optimizer, attach `AnchoredSteps(SelectiveDecay(...), anchors)`.

    Args:
        params: one or several parameter groups with "params" and optionally "pre", as many anchors, copied. A group
            without "pre" is trained by plain Adam: the head. (Where the published one decays towards zero, for
            adapters, give zeros.) Anchors ride in `state_dict()` with their group.
        lr: step size.
        betas: decay of Adam's moments.
        eps: added to Adam's denominator.
        weight_decay: lambda of the selective decay, also as a key of a group that is added; 0 is plain Adam. In
            `param_groups` it is "selective_decay", which may be scheduled; there is no decay to zero.
        amsgrad: use the maximum of second moments.
        foreach: torch's choice of implementation.
        fused: the same.

    Raises:
        ValueError: if "pre" and "params" of a group differ in length, or weight_decay is negative; at a step, if a
            group's "weight_decay" is not 0.
    """

    def __init__(
        self,
        params: Mapping[str, Any] | Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        groups = [dict(params)] if isinstance(params, Mapping) else list(params)
        self._decay = weight_decay
        self._steps: list[AnchoredSteps] = []
        super().__init__(groups, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, foreach=foreach, fused=fused)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, for a group with "params" and optionally "pre" and "weight_decay" (the selective one)."""
        group = dict(param_group)
        # Adam itself decays nothing: its own "weight_decay" would be towards zero.
        group["selective_decay"] = group.pop("weight_decay", self._decay)
        anchors = group.get("pre", [])
        anchors = [anchors] if isinstance(anchors, Tensor) else anchors or []
        group["pre"] = [anchor.detach().clone() for anchor in anchors]
        super().add_param_group(group)
        parameters = self.param_groups[-1]["params"]
        if group["pre"] and len(group["pre"]) != len(parameters):
            raise ValueError(f'A group has {len(parameters)} "params" but {len(group["pre"])} "pre".')
        self._follow()

    def _follow(self) -> None:
        """Decay after each step, by the groups as they are now."""
        for steps in self._steps:
            steps.detach()
        self._steps = []
        for group in self.param_groups:
            steps = AnchoredSteps(_GroupDecay(group), {})
            # The group's own copies: once is enough.
            steps.anchors = dict(zip(group["params"], group["pre"], strict=bool(group["pre"])))
            self._steps.append(steps.attach(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_decay": self._decay, "_steps": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        before: list[dict[str, Any]] = getattr(self, "param_groups", [])
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for index, group in enumerate(self.param_groups):
            if "selective_decay" in group:
                continue
            if "pre" in group or not before:  # a state of the published AdamSPD
                group["selective_decay"], group["weight_decay"] = group["weight_decay"], 0.0
                group["pre"] = list(group.get("pre") or [])
            else:  # one of plain Adam, which knows of no anchors: those given stay
                kept = ("selective_decay", "weight_decay", "pre")
                group.update({name: before[index][name] for name in kept})
        self._follow()  # of a copy, which has no hooks yet, or with the anchors of a loaded state


class _GroupDecay(SelectiveDecay):
    """The decay of one parameter group, as large as the group says at each step."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        super().__init__(group["selective_decay"])
        self._group = group

    def before(self, weights: Tensor, anchor: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if self._group["weight_decay"]:
            raise ValueError(
                f"weight_decay={self._group['weight_decay']} in a group of AdamSPD would be a decay to zero: "
                'set or schedule its "selective_decay".'
            )
        self.weight_decay = self._group["selective_decay"]
        return super().before(weights, anchor, gradient)
