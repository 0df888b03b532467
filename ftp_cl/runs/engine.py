"""How an iteration is carried out: in which precision, and by how many processes that load."""

from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ftp_cl.models import ContinualClassifier
from ftp_cl.runs.config import ConfigError

_DTYPES = {32: None, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


class Engine:
    """Carries out what is between a batch and a step of the optimizer.

    Mixed precision is torch's autocast around the backbone, wherever it is called from: in training, evaluation, the
    passes of methods and prototypes. Features come out in float32, so that head, losses, prototypes, weights and their
    optimizer are in float32; a model that is no `ContinualClassifier` is taken as a whole. With float16 small gradients
    vanish. Those of the loss are scaled (torch's GradScaler); passes for gradients of other things are in float32.

    Args:
        config: of the run.
        device: that computes.

    Raises:
        ConfigError: the device lacks the precision.
    """

    def __init__(self, config: DictConfig, device: torch.device) -> None:
        self.workers: int = config.loader.workers
        self._dtype, self.device = _DTYPES[config.precision], device
        _check_precision(config.precision, self._dtype, device)
        self._scaler = torch.amp.GradScaler(device.type) if self._dtype is torch.float16 else None
        self._is_scaled = False

    def prepare(self, model: nn.Module) -> None:
        """Let a model, and copies made of it, compute in this precision."""
        if self._dtype is not None:
            part = model.backbone if isinstance(model, ContinualClassifier) else model
            part.__class__ = _with_autocast(type(part), self)

    def refuse_own_loop(self, strategy: str) -> None:
        """Refuse what needs Avalanche's loop.

        Raises:
            ConfigError: the configuration asks for it.
        """
        asked = {"precision=fp16-mixed": self._scaler, "loader.workers": self.workers}
        for key, value in asked.items():
            if value:
                raise ConfigError(f"{key} needs Avalanche's training loop, and {strategy} has its own.")

    # ---- an iteration -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The forward pass of an iteration comes next."""
        self._is_scaled = True

    def backward(self, loss: Tensor, optimizer: Any, retain_graph: bool) -> None:
        """Add the gradients of the loss to those of the weights."""
        if self._scaler is None:
            loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
        else:
            self._scaler.scale(loss).backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
            self._scaler.unscale_(optimizer)
        self._is_scaled = False

    def step(self, optimizer: Any) -> None:
        """The optimizer's."""
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The scale of gradients."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self._scaler is not None:
            self._scaler.load_state_dict(state)

    def autocast(self) -> torch.autocast:
        """The precision of a pass that begins now."""
        is_on = self._scaler is None or self._is_scaled or not torch.is_grad_enabled()
        return torch.autocast(self.device.type, self._dtype, enabled=is_on)


def _check_precision(name: Any, dtype: torch.dtype | None, device: torch.device) -> None:
    if dtype is None:
        return
    lacks = not torch.amp.is_autocast_available(device.type)
    if device.type == "cuda":
        lacks = dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False)
    if lacks:
        raise ConfigError(f"precision={name} is not for the device {device}, which lacks it: use precision=32.")


def _with_autocast(kind: type[nn.Module], engine: Engine) -> type[nn.Module]:
    """The class of a module that computes in an engine's precision; by its class, so that copies do so too."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with engine.autocast():
            return _to_float(kind.forward(self, *args, **kwargs))

    return type(kind.__name__, (kind,), {"forward": forward})


def _to_float(output: Any) -> Any:
    """What a model returns, in float32: as it is, or the tensors in its lists, tuples and dicts."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
    if isinstance(output, dict):
        return {key: _to_float(value) for key, value in output.items()}
    return type(output)(map(_to_float, output)) if type(output) in (list, tuple) else output
