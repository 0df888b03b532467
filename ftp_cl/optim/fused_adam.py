"""AdamW's update and the projection in one pass over memory, for the tensors that allow it.

What is done here is done before torch's own step, which finds no gradients at these tensors and leaves them alone.
"""

import itertools
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from ftp_cl.optim.step_hooks import has_step_of, same
from ftp_cl.projection import Rule, Update

Moments = tuple[Tensor, Tensor, Tensor]
_moments_of = operator.itemgetter("exp_avg", "exp_avg_sq", "step")


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
    """The tensors that are voted on, updated and projected together, before the optimizer's step.

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
        self._updates, self._allowed = updates, _allowed(optimizer)
        self._states = [*optimizer.state, *optimizer.state.values()]
        waiting: dict[tuple[Any, Hashable], tuple[list[Update], list[Moments]]] = {}
        for update in updates:
            state = optimizer.state.get(update.weights)
            possible = update.sharding is None and id(update.group) in self._allowed
            moments = _moments_of(state) if state and possible else None
            key = None if moments is None else _key(update, moments, backends)
            if moments is None or key is None:
                self.left.append(update)
                continue
            own_updates, own_moments = waiting.setdefault(key, ([], []))
            own_updates.append(update)
            own_moments.append(moments)
        self._waiting = [
            (backend, own, list(zip(*moments, strict=True)), *_groups_of(own))
            for (backend, _), (own, moments) in waiting.items()
        ]
        self._known = [optimizer.state[update.weights] for _, own, *_ in self._waiting for update in own]
        self._moments = self._moments_now()
        self._sizes = list(map(Tensor.numel, self._moments))

    def fits(self, optimizer: Optimizer, updates: Sequence[Update]) -> bool:
        """Whether it would be made the same; `updates` are another list if any tensor is of another kind."""
        return (
            updates is self._updates
            and _allowed(optimizer) == self._allowed
            and same([*optimizer.state, *optimizer.state.values()], self._states)
            and same(self._moments_now(), self._moments)
            and list(map(Tensor.numel, self._moments)) == self._sizes
        )

    def _moments_now(self) -> list[Tensor]:
        return list(itertools.chain.from_iterable(map(_moments_of, self._known)))

    def run(self, rule: Rule) -> None:
        """Vote, take Adam's step and project."""
        self.parts = []
        for backend, updates, columns, groups, group_of_each in self._waiting:
            hyper = np.array([_hyper_parameters(update) for update in groups])[group_of_each]
            self.parts.append((updates, backend.adam(updates, columns, hyper, rule)))
            for update in updates:
                update.weights.grad = None

    def give_back(self) -> None:
        """Give the tensors that are done their gradients back."""
        for updates, _ in self.parts:
            for update in updates:
                update.weights.grad = update.gradient


def _groups_of(updates: Sequence[Update]) -> tuple[list[Update], list[int]]:
    """One tensor of each parameter group, and the number of each tensor's."""
    ids = [id(update.group) for update in updates]
    groups = dict(zip(ids, updates, strict=True))
    numbers = {group: number for number, group in enumerate(groups)}
    return list(groups.values()), [numbers[group] for group in ids]


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


def _allowed(optimizer: Optimizer) -> set[int]:
    """The ids of parameter groups with such settings."""
    adamw = isinstance(optimizer, AdamW)
    return {id(group) for group in optimizer.param_groups if _group_allows(group, adamw)}


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
