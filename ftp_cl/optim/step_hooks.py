"""torch's step hooks: which are those of the outermost step, and when gradients are there that come from within it.

An optimizer whose `step` calls `super().step()` runs them twice, one step within the other, if torch has put hooks on
the parent class as well, which it does once one of that class is made. What follows a step must wait for the outer one:
it may still change weights.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer


def _nothing() -> None:
    """Stands for a step."""


_HOOKED = Optimizer.profile_hook_step(_nothing).__code__
"""What torch runs around a step of any optimizer: pre-hooks, the step, post-hooks."""


def is_outermost(optimizer: Optimizer) -> bool:
    """In a step hook: whether the step is not within another one of the same optimizer."""
    steps, frame = 0, _caller()
    while frame is not None:
        steps += frame.f_code is _HOOKED and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return steps <= 1


def is_called_by(function: str) -> bool:
    """Whether a function of torch.distributed.checkpoint.state_dict of that name is at work."""
    module = "torch.distributed.checkpoint.state_dict"
    frame = _caller() if module in sys.modules else None
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False


def _caller() -> FrameType | None:
    return sys._getframe().f_back


def has_step_of(kind: type[Optimizer], base: type[Optimizer]) -> bool:
    """Whether a class has not changed the `step` of one of its bases."""
    return inspect.unwrap(kind.step) is inspect.unwrap(base.step)


def same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether they are the very same objects; tensors are compared by no number."""
    return len(some) == len(others) and all(map(operator.is_, some, others))


def begin_with(
    closure: Callable[[], Any], begin: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a step whose closure begins it: its first evaluation is of the weights before the step."""
    begun = False

    def closure_then_begin() -> Any:
        nonlocal begun
        with torch.enable_grad():
            loss = closure()
        if not begun:
            begun = True
            with torch.no_grad():
                begin()
        return loss

    if len(args) > 1:
        return (args[0], closure_then_begin), kwargs
    return args, {**kwargs, "closure": closure_then_begin}
