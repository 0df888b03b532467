"""AdamW's update and the projection in one pass over memory, for the tensors that allow it.

What is done here is done before torch's own step, which finds no gradients at these tensors and leaves them alone.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from ftp_cl.optim.step_hooks import has_step_of
from ftp_cl.projection import Rule, Update
from ftp_cl.projection.backends.plan import still_fits

Moments = tuple[Tensor, Tensor, Tensor]


def can_fuse(optimizer: Optimizer) -> bool:
    """Whether the step that begins is torch's fused Adam or AdamW, not under a GradScaler."""
    scaled = any(getattr(optimizer, name, None) is not None for name in ("found_inf", "grad_scale"))
    return _is_adam(type(optimizer)) and any(group["fused"] for group in optimizer.param_groups) and not scaled


def _is_adam(kind: type[Optimizer]) -> bool:
    """Not so a class that changes weights after Adam's step, or gradients before it."""
    return any(
        issubclass(kind, base) and has_step_of(kind, base) and kind._init_group is base._init_group
        for base in (Adam, AdamW)
    )


class FusedStep:
    """The tensors of one step that are voted on, updated and projected together, before the optimizer's step.

    If that step raises, the gradients of what is done here are gone until `give_back`, so that it is not done again.

    Args:
        optimizer: one that `can_fuse`.
        updates: of this step.
        backends: those that have `adam`, in order; the first that takes a tensor does its step.

    Attributes:
        parts: the tensors, by what works on them together, and which of them were skipped once they are done.
        left: those that are left to torch, because Adam has no state of their tensors yet, their parameter groups have
            settings that the backends lack, or no backend takes them.
    """

    def __init__(self, optimizer: Optimizer, updates: Sequence[Update], backends: Sequence[Any]) -> None:
        self.parts: list[tuple[list[Update], Tensor]] = []
        self.left: list[Update] = []
        self._waiting: dict[tuple[Any, Hashable], tuple[list[Update], list[Moments]]] = {}
        adamw = isinstance(optimizer, AdamW)
        allowed = {id(group) for group in optimizer.param_groups if _group_allows(group, adamw)}
        for update in updates:
            state = optimizer.state.get(update.weights)
            possible = update.sharding is None and id(update.group) in allowed
            if not (state and possible and self._takes(update, state, backends)):
                self.left.append(update)

    def _takes(self, update: Update, state: dict[str, Tensor], backends: Sequence[Any]) -> bool:
        """Not a tensor that has grown, of which FTP covers a part only."""
        first, second, steps = moments = state["exp_avg"], state["exp_avg_sq"], state["step"]
        known = update.state.fitting
        same = known is not None and known[1] is first and known[2] is second and known[3] is steps
        if not (same and still_fits(update, first, second)):
            key = _key(update, moments, backends)
            known = update.state.fitting = key and (key, *moments)
            if known is None:
                return False
        key = known[0]
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = [], []
        updates, columns = waiting
        updates.append(update)
        columns.append(moments)
        return True

    def run(self, rule: Rule) -> None:
        """Vote, take Adam's step and project."""
        for (backend, _), (updates, columns) in self._waiting.items():
            ids = [id(update.group) for update in updates]
            groups = dict(zip(ids, updates, strict=True))
            numbers = {group: number for number, group in enumerate(groups)}
            lines = np.array([_hyper_parameters(update) for update in groups.values()])
            hyper = lines[[numbers[group] for group in ids]]
            self.parts.append((updates, backend.adam(updates, list(zip(*columns, strict=True)), hyper, rule)))
            for update in updates:
                update.weights.grad = None

    def give_back(self) -> None:
        """Give the tensors that are done their gradients back."""
        for updates, _ in self.parts:
            for update in updates:
                update.weights.grad = update.gradient


def _key(update: Update, moments: Moments, backends: Sequence[Any]) -> Any:
    """The backend that takes a tensor and Adam's state of it, and their layout; None: none does."""
    weights, (first, second, steps) = update.weights, moments
    if steps.numel() != 1 or steps.dtype != torch.float32 or steps.device != weights.device:
        return None
    if update.group["capturable"] and weights.is_cpu:
        return None
    if any(
        tensor.shape != update.state.anchor.shape for tensor in (weights, first, second)
    ):  # a loaded state may be wrong
        return None
    layouts = ((backend, backend.layout(update, first, second)) for backend in backends)
    return next((key for key in layouts if key[1] is not None), None)


def _group_allows(group: dict[str, Any], adamw: bool) -> bool:
    """Whether a parameter group asks for torch's fused AdamW, with settings that the backends have."""
    decoupled = not group["weight_decay"] or group.get("decoupled_weight_decay", adamw)
    on_host = not any(isinstance(number, Tensor) and not number.is_cpu for number in (group["lr"], *group["betas"]))
    return group["fused"] and decoupled and on_host and not (group["amsgrad"] or group["differentiable"])


def _hyper_parameters(update: Update) -> tuple[float, ...]:
    """What the backends' loops take of each tensor."""
    group = update.group
    lr, (beta1, beta2) = float(group["lr"]), (float(beta) for beta in group["betas"])
    return update.k, update.sign, lr, group["weight_decay"], beta1, beta2, group["eps"]
