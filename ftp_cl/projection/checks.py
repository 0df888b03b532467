"""What a tensor or number from outside must be before it is computed with, or its address is used."""

import math
from typing import Any

import torch
from torch import Tensor, nn

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes that weights, anchors and changes may have."""


def number(value: Any) -> float:
    """NaN for what is none; a 0-d tensor is one."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


def problem_of(tensor: Any) -> str | None:
    """Why this is no tensor of real numbers that can be read, as the rest of a sentence; None: it is one."""
    if not isinstance(tensor, Tensor):
        return f"is no tensor but a {type(tensor).__name__}"
    if tensor.layout != torch.strided or tensor.is_nested or type(tensor) not in (Tensor, nn.Parameter):
        return "is not a plain dense tensor"
    if tensor.is_meta:
        return "is on the meta device, which holds no numbers"
    if tensor.dtype not in COMPUTED:
        return f"is of {tensor.dtype}, not of a floating-point type that weights have"
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = tensor.storage_offset() + reach + 1
    if tensor.numel() and tensor.untyped_storage().nbytes() < end * tensor.element_size():
        return "has less memory than its shape needs"
    return None
