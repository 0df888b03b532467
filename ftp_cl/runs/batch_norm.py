"""BatchNorm whose statistics, of several processes that train together, are those of the whole batch."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from ftp_cl.plugins.processes import with_others


def synchronize(model: nn.Module, images: Callable[[], float | None]) -> None:
    """Let the BatchNorm layers of a model, and of copies made of it, see the batches of all processes.

    torch's own SyncBatchNorm is for GPUs only, and counts the image that stands in where a process has none.

    Args:
        model: with any kind of BatchNorm; its layers change their class.
        images: tells how much an image counts in the pass that begins; None: the pass is each process's own.

    Raises in a pass in training mode:
        ValueError: all processes together have one value per channel (as torch for one process), or a layer normalises
            in a way of its own.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = _synchronized(type(module), images)  # type: ignore[assignment]


def _synchronized(kind: type[nn.Module], images: Callable[[], float | None]) -> type[nn.Module]:
    @torch.compiler.disable  # each process compiles for its own sizes, and would wait for other sums than the others
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        count = images()
        if count is None:
            return kind.forward(self, *args, **kwargs)
        with _OfAllProcesses(count) as mode:
            output = kind.forward(self, *args, **kwargs)
        if self.training and not mode.has_normalised:
            raise ValueError(
                f"{kind.__name__} does not normalise by torch.nn.functional.batch_norm, so that each process would "
                "have statistics of its own: use torch's BatchNorm1d, 2d or 3d, which here has those of all processes."
            )
        return output

    return type(kind.__name__, (kind,), {"forward": forward})


class _OfAllProcesses(TorchFunctionMode):
    """Within it `batch_norm` in training mode normalises by mean and variance over all processes.

    Args:
        count: how much an image of this process counts, 0 or 1.

    Attributes:
        has_normalised: whether `batch_norm` was called.
    """

    def __init__(self, count: float) -> None:
        super().__init__()
        self._count = count
        self.has_normalised = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_ours = function is F.batch_norm
        return (self._batch_norm if is_ours else function)(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        self.has_normalised = True
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        values = input.float() if input.itemsize < 4 else input
        others = [dimension for dimension in range(input.dim()) if dimension != 1]
        shape = [-1 if dimension == 1 else 1 for dimension in range(input.dim())]
        number = self._sum(values.new_full((1,), input.numel() / input.shape[1]))
        if input.numel() == input.shape[1] and number <= 1:  # the latter waits for a GPU: not where it cannot be
            size = list(input.shape)
            raise ValueError(f"Expected more than 1 value per channel when training, got {size} of all processes.")
        mean = self._sum(values.sum(others)) / number
        centred = values - mean.view(shape)
        variance = self._sum(centred.square().sum(others)) / number
        if running_mean is not None and running_var is not None:
            unbiased = variance.detach() * number / (number - 1)
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        output = centred * scale.view(shape)
        return (output if bias is None else output + bias.view(shape)).to(input.dtype)

    def _sum(self, values: Tensor) -> Tensor:
        return _Sum.apply(self._count * values)  # type: ignore[no-any-return,no-untyped-call]


class _Sum(Function):
    """The sum over the processes; so is its gradient, because each process has a part of the loss."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


@with_others()
def _summed(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values)
    return values
