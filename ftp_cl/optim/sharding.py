"""Tensors that are spread over processes: FSDP2 and any distributed tensor that is sharded along dimension 0.

Rows of matrices are whole in one process; a tensor of one dimension is one row, of which each process has a part.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.projection import Sharding


def sharding_of(name: str, parameter: nn.Parameter) -> Sharding | None:
    """How a parameter is spread; None if this process has all of it.

    Raises:
        ValueError: for a parameter of FSDP's first version, or one that is not sharded along dimension 0 only.
    """
    if getattr(parameter, "_fsdp_flattened", False):
        raise ValueError(
            f"{name} is one of FSDP's parameters, flattened, whose rows FTP cannot tell: use fully_shard (FSDP2)."
        )
    groups: list[Any] = []
    placements = getattr(parameter, "placements", ())
    for dimension, placement in enumerate(placements):
        if type(placement).__name__ == "Shard" and placement.dim == 0 and not groups:
            groups.append(parameter.device_mesh.get_group(dimension))  # type: ignore[attr-defined]
        elif not placement.is_replicate():
            raise ValueError(
                f"{name} is a distributed tensor placed as {placements}; FTP needs rows that are whole "
                "in one process, as fully_shard leaves them: sharded along dimension 0, and once."
            )
    return Sharding(groups[0], parameter.dim() <= 1) if groups else None


def local(tensor: Any) -> Any:
    """The part of a tensor that this process has; the same memory."""
    return tensor.to_local().detach() if hasattr(tensor, "placements") else tensor


def local_like(tensor: Any, parameter: nn.Parameter) -> Any:
    """What this process has of a tensor of the parameter's shape or rows, given whole or distributed."""
    if not hasattr(parameter, "placements") or not isinstance(tensor, Tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    if hasattr(tensor, "placements"):
        return tensor.redistribute(mesh, placements).to_local()  # type: ignore[attr-defined]
    on_device = tensor.detach().to(mesh.device_type)
    return distribute_tensor(on_device, mesh, placements, src_data_rank=None).to_local()


def spread_like(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """The distributed tensor of these parts: of the parameter's shape, or one number for each row."""
    from torch.distributed.tensor import DTensor

    shape = torch.Size([*parameter.shape[:1], *part.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return DTensor.from_local(part.contiguous(), mesh, placements, run_check=False, shape=shape, stride=stride)


def whole(tensor: Any) -> Any:
    """All of a tensor, from all processes, which must all ask."""
    return tensor.full_tensor() if hasattr(tensor, "placements") else tensor
