"""Rows of a weight tensor: the slices along dimension 0, each of which is projected onto a ball of its own.

A tensor with one dimension or none is one single row, as in the published code, where the sum over `dim=()` reduces
everything. Norms and sums of half-precision tensors are taken in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NORM_EPSILON = 1e-8
"""Added to every row's L1 norm, as published, so that an unchanged row divides by more than zero."""


def as_rows(tensor: Tensor) -> Tensor:
    """A view of shape [rows, elements per row] over the same memory.

    The order of elements within a row follows memory (a channels_last tensor is not copied), so two tensors are
    comparable element by element only if their strides agree.

    Raises:
        ValueError: if the rows do not lie densely in memory; `has_dense_rows` tells beforehand.
    """
    if tensor.is_contiguous():
        return tensor.view(tensor.shape[0] if tensor.dim() > 1 else 1, -1)
    if not has_dense_rows(tensor):
        raise ValueError(
            f"Rows of a tensor with shape {tuple(tensor.shape)} and strides {tensor.stride()} are not dense."
        )
    return tensor.permute(0, *_by_stride(tensor)).view(tensor.shape[0], -1)


def has_dense_rows(tensor: Tensor) -> bool:
    """Whether dimension 0 is the outermost in memory and each row is one gapless block."""
    if tensor.dim() <= 1:
        return tensor.is_contiguous()
    return tensor.permute(0, *_by_stride(tensor)).is_contiguous()


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor, or a copy whose rows lie densely: those of a transposed one do not."""
    return tensor if has_dense_rows(tensor) else tensor.contiguous()


def empty_like_rows(tensor: Tensor) -> Tensor:
    """An uninitialised tensor of the same shape and device with dense rows, in the same strides where possible."""
    layout = torch.preserve_format if has_dense_rows(tensor) else torch.contiguous_format
    return torch.empty_like(tensor, requires_grad=False, memory_format=layout)


def row_norms(change: Tensor) -> Tensor:
    """``n_r(A) = sum |A_r| + 1e-8`` for each row, shape [rows] (arXiv 2303.10720, section 3.2, "MARS")."""
    rows = as_rows(dense_rows(change))
    # The sum of a temporary takes half the time of torch.linalg.vector_norm on CPU.
    return rows.abs().sum(dim=1, dtype=accumulation_dtype(change.dtype)).add_(NORM_EPSILON)


def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """<A_r, B_r> for each row, shape [rows]; both tensors have the same shape."""
    right = dense_rows(right)
    if not same_layout(left, right):
        left = torch.empty_like(right, dtype=left.dtype).copy_(left)
    dtype = accumulation_dtype(torch.promote_types(left.dtype, right.dtype))
    return torch.mul(as_rows(left).to(dtype), as_rows(right).to(dtype)).sum(dim=1)


def summary_of_rows(radius: float, distances: Tensor, bounded: Tensor) -> dict[str, float]:
    """As plain numbers: a tensor's radius, its rows' distances from the anchor, the share of rows at the boundary."""
    return {
        "radius": radius,
        "mean_distance": distances.mean().item(),
        "max_distance": distances.max().item(),
        "boundary_share": bounded.float().mean().item(),
    }


def gathered(numbers: Sequence[Tensor]) -> Tensor:
    """0-d tensors as one of shape [numbers], on the device of the first."""
    return torch.stack([number.to(numbers[0].device) for number in numbers])


def per_row(values: Tensor, tensor: Tensor) -> Tensor:
    """`values` of shape [rows], reshaped to broadcast over `tensor`."""
    return values.view(-1, *[1] * (tensor.dim() - 1)) if tensor.dim() > 1 else values.view(tensor.dim() * (1,))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays float64, everything else is summed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def kept_dtype(device: torch.device) -> torch.dtype:
    """Of the few numbers that a state keeps of rows and tensors: float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def is_captured(device: torch.device) -> bool:
    """Whether work on the device goes into a CUDA graph at the moment, and is not done yet."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def refuse_capture(device: torch.device) -> None:
    """Raise a RuntimeError in a graph's capture: each replay would repeat what is to be done once."""
    if is_captured(device):
        raise RuntimeError(
            "FTP's first step with these tensors is in the capture of a CUDA graph: take a step outside before."
        )


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host's, on the device, without waiting for it; a graph must not fetch them again."""
    refuse_capture(device)
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def same_layout(left: Tensor, right: Tensor) -> bool:
    """Whether equal positions in memory hold equal indices; the stride of a dimension of size 1 means nothing."""
    if left.shape != right.shape:
        return False
    return left.stride() == right.stride() or all(
        size == 1 or own == other for size, own, other in zip(left.shape, left.stride(), right.stride(), strict=True)
    )


def _by_stride(tensor: Tensor) -> list[int]:
    """Dimensions 1 and up, the one with the largest stride first."""
    strides = tensor.stride()
    return sorted(range(1, tensor.dim()), key=lambda dimension: -strides[dimension])
