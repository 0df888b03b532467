"""AdamW's update and the projection in one pass over memory, for the tensors that allow it.

What is done here is done before torch's own step, which finds no gradients at these tensors and leaves them alone.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from ftp_cl.optim.nesting import has_step_of
from ftp_cl.optim.turns import Turn, finish

if TYPE_CHECKING:
    from ftp_cl.projection.numba_backend import Kind, NumbaBackend


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


def step_and_project(optimizer: Optimizer, turns: Sequence[Turn], backend: "NumbaBackend", mu: float) -> list[Turn]:
    """Vote, take Adam's step and project where the compiled loops can; `give_back` is to follow the optimizer's step.

    If that step raises, the gradients of what is done here are gone, so that it is not done again.

    Args:
        optimizer: one that `can_fuse`.
        turns: of this step.
        backend: runs the loops.
        mu: step size of the radii.

    Returns:
        The turns that are left to torch, because Adam has no state of their tensors yet, their parameter groups have
        settings that the loops lack, they cannot be taken by the loops, or they have gradients that are not finite.
    """
    groups = {id(group) for group in optimizer.param_groups if _group_allows(group, isinstance(optimizer, AdamW))}
    kinds: dict[Kind | None, list[tuple[Turn, dict[str, Tensor]]]] = {}
    for turn in turns:
        state: dict[str, Tensor] = optimizer.state.get(turn.weights, {})
        kind = _kind(turn, state, backend) if state and id(turn.group) in groups else None
        kinds.setdefault(kind, []).append((turn, state))
    left = [turn for turn, _ in kinds.pop(None, [])]
    for work in kinds.values():
        left += _of_one_kind(work, backend, mu)
    return left


def give_back(turns: Sequence[Turn]) -> None:
    """Give the tensors that `step_and_project` has done their gradients back."""
    for turn in turns:
        if turn.finished:
            turn.weights.grad = turn.gradient


def _group_allows(group: dict[str, Any], adamw: bool) -> bool:
    """Whether a parameter group asks for torch's fused AdamW, with settings that the compiled loop has."""
    decoupled = not group["weight_decay"] or group.get("decoupled_weight_decay", adamw)
    return group["fused"] and decoupled and not (group["amsgrad"] or group["capturable"] or group["differentiable"])


def _kind(turn: Turn, state: dict[str, Tensor], backend: "NumbaBackend") -> "Kind | None":
    """See `NumbaBackend.kind_of`; None, too, for a tensor that has grown, of which FTP covers a part only."""
    weights, steps, moments = turn.weights, state["step"], (state["exp_avg"], state["exp_avg_sq"])
    if steps.numel() != 1 or steps.dtype != torch.float32 or not steps.is_cpu:
        return None
    if any(tensor.shape != turn.state.anchor.shape for tensor in (weights, *moments)):  # a loaded state may be wrong
        return None
    return backend.kind_of(turn.state, weights, turn.gradient, *moments)


def _of_one_kind(work: Sequence[tuple[Turn, dict[str, Tensor]]], backend: "NumbaBackend", mu: float) -> list[Turn]:
    """Vote, take Adam's step and project; returns the turns whose votes are not finite, to which nothing is done."""
    turns, states = [turn for turn, _ in work], [state for _, state in work]
    columns: list[list[Tensor]] = [
        [turn.weights for turn in turns],
        [turn.gradient for turn in turns],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
    ]
    steps = [state["step"] for state in states]
    hyper = _hyper_parameters(turns, (backend.add_to_each(steps, 0) + 1).tolist(), mu)
    results = backend.adam([turn.state for turn in turns], columns, hyper)
    done, counters, largest_rows, left = [], [], [], []
    for turn, counter, (vote, radius, largest) in zip(turns, steps, results, strict=True):
        if not math.isfinite(vote):
            left.append(turn)
            continue
        turn.before, turn.state.radius = turn.state.radius, radius
        turn.weights.grad = None
        done.append(turn)
        counters.append(counter)
        largest_rows.append(largest)
    backend.add_to_each(counters, 1)
    finish(done, largest_rows)
    return left


def _hyper_parameters(turns: Sequence[Turn], steps: Sequence[float], mu: float) -> np.ndarray:
    """What `numba_kernels.adam_rows` takes, a line for each tensor; `steps` are Adam's, with this one."""
    lines: list[tuple[float, ...]] = []
    line_of: dict[tuple[int, float], int] = {}
    order = []
    for turn, step in zip(turns, steps, strict=True):
        key = id(turn.group), step
        if key not in line_of:  # few differ
            line_of[key] = len(lines)
            lines.append(_hyper_parameters_at(step, turn.group, turn.k, mu))
        order.append(line_of[key])
    return np.array(lines)[order]


def _hyper_parameters_at(step: float, group: dict[str, Any], k: float, mu: float) -> tuple[float, ...]:
    lr, (beta1, beta2) = float(group["lr"]), (float(beta) for beta in group["betas"])
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    keep, sign = 1 - lr * group["weight_decay"], -1 if group["maximize"] else 1
    return keep, 1 - beta1, beta2, 1 - beta2, rate, root, group["eps"], sign, k, mu
