"""A few steps of small tensors, which show whether compiled kernels do on a device what plain torch does.

What a compiler or a driver makes of a kernel cannot be known before; a wrong step would stay unseen in training.
"""

import logging
import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftp_cl.projection.backends.plan import plan_of
from ftp_cl.projection.backends.protocol import Part, Rule, Scaler, Update, parts_of
from ftp_cl.projection.backends.torch_backend import TorchBackend
from ftp_cl.projection.rows import refuse_capture
from ftp_cl.projection.tensor_state import Storage, TensorState

logger = logging.getLogger(__name__)

SHAPES = (40, 3, 3), (1, 9_000), (9,)
"""Narrow rows, a row that several programs share, and a short one."""

LR, DECAY, BETAS, EPSILON = 0.01, 0.1, (0.9, 0.999), 1e-8


@cache
def works(kind: type, device: torch.device) -> bool:
    """Whether such a backend passes the trial there, which is made once; a warning says if it does not.

    Without room for it, or in a graph's capture, it is not made, and raises.
    """
    refuse_capture(device)
    try:
        problem = _difference(kind(), device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    if problem is not None:
        logger.warning("The %s backend does not work on %s (%s): plain torch does.", kind.name, device, problem)  # type: ignore[attr-defined]
    return problem is None


def _difference(backend: Any, device: torch.device) -> str | None:
    for method in ("paper", "one_pass"):
        for adam in (False, True):
            own, expected = (_steps(each, device, Rule(method=method), adam) for each in (backend, TorchBackend()))
            for name, one, other in zip((*SHAPES, *SHAPES), own, expected, strict=True):
                if not torch.allclose(one, other, rtol=1e-3, atol=1e-6):
                    return f"{method}{', with Adam' * adam}, {name}: off by {(one - other).abs().max().item():.2g}"
    return None


@torch.no_grad()
def _steps(backend: Any, device: torch.device, rule: Rule, adam: bool) -> list[Tensor]:
    """Weights and numbers of all tensors after three steps; no random number is drawn."""
    kind: Any = {"device": device, "dtype": torch.float32}
    weights = [torch.sin(torch.arange(math.prod(shape), **kind)).view(shape) for shape in SHAPES]
    moments = [[torch.zeros_like(weight) for weight in weights] for _ in range(2)]
    counts = [torch.zeros((), **kind) for _ in weights]
    storage = Storage(keeps_change=not rule.one_pass)
    states = [TensorState(weight, like=weight, storage=storage) for weight in weights]
    for state in states:
        plan_of(state)
    hyper = np.array([[0.5, 1.0, LR, DECAY, *BETAS, EPSILON]] * len(weights))
    for step in range(1, 4):
        gradients = [torch.cos(7 * weight + step) for weight in weights]
        given = zip(SHAPES, weights, gradients, states, strict=True)
        updates = [Update(str(shape), weight, gradient, state, {}, 0.5) for shape, weight, gradient, state in given]
        if adam and hasattr(backend, "adam"):
            backend.adam(updates, [*moments, counts], hyper, rule)
            continue
        parts = parts_of(updates, [backend]) if isinstance(backend, TorchBackend) else [Part(backend, updates)]
        for part in parts:
            part.vote(rule)
        for weight, gradient, first, second in zip(weights, gradients, *moments, strict=True):
            if adam:
                first.lerp_(gradient, 1 - BETAS[0])
                second.lerp_(gradient.square(), 1 - BETAS[1])
                sizes = (second / (1 - BETAS[1] ** step)).sqrt() + EPSILON
                gradient = first / (1 - BETAS[0] ** step) / sizes + DECAY * weight
            weight -= LR * gradient
        for part in parts:
            part.project(rule, Scaler())
    return [*weights, *(state.numbers.float() for state in states)]
