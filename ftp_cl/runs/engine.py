"""How an iteration is carried out: precision, compilation, memory layout, parts of a batch, mixup, clipping."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_is_leaf, tree_leaves, tree_map

from ftp_cl.models import ContinualClassifier
from ftp_cl.plugins.processes import average, count, joined, share
from ftp_cl.runs.batch_norm import synchronize
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.group import same_random_numbers
from ftp_cl.runs.schema import shortened

_DTYPES = {None: None, 32: None, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}

MODEL_KEYS = ("channels_last", "gradient_checkpointing")
"""Of the models that ship, for the engine: what a model is does not depend on them."""


class Engine:
    """Carries out what is between a batch and a step of the optimizer.

    Mixed precision is torch's autocast around the backbone, wherever it is called from: in training, evaluation, the
    passes of methods and prototypes. Features come out in float32, so that head, losses, prototypes, weights and their
    optimizer are in float32; a model that is no `ContinualClassifier` is taken as a whole. With float16 small gradients
    vanish. Those of the loss are scaled (torch's GradScaler); passes for gradients of other things are in float32.

    Args:
        config: of the run.
        device: that computes.
        say: takes lines for the user.

    Attributes:
        is_in_iteration: between a batch and its step, where each process has images of its own.

    Raises:
        ConfigError: the device lacks the precision, or TensorFloat-32; or the precision takes no fused step.
    """

    def __init__(self, config: DictConfig, device: torch.device, say: Callable[[str], None]) -> None:
        self.device = device
        self.workers: int = config.loader.workers or 0
        self.accumulate: int = config.train.accumulate or 1
        self._clip_norm, self._mixup = config.train.clip_norm, config.train.mixup
        self._compile, self._say = bool(config.compile), say
        self._dtype = _DTYPES[config.precision]
        _check_precision(config.precision, self._dtype, device)
        _set_tf32(config.tf32, device)
        self._scaler = torch.amp.GradScaler(device.type) if self._dtype is torch.float16 else None
        if self._scaler is not None and config.optimizer.fused:
            raise ConfigError(
                "optimizer.fused=true does not go with precision=fp16-mixed: methods would learn from overflown steps."
            )
        self.prefers_fused = device.type == "cuda" and self._scaler is None
        self._is_scaled = False
        self._parts, self._weight = 1, 1.0
        self._kept: float | None = None
        self._others: Tensor
        self._counts = True  # for BatchNorm: the images of a pass are no stand-ins where there are too few
        self.is_in_iteration = False

    def prepare(self, model: nn.Module, channels_last: bool | None, gradient_checkpointing: bool | None) -> None:
        """Let a model, and copies made of it, compute as the configuration says.

        Raises:
            ConfigError: the model has no gradient checkpointing.
        """
        part: Any = model.backbone if isinstance(model, ContinualClassifier) else model
        if isinstance(model, ContinualClassifier) and channels_last is not None:
            model.channels_last = channels_last
            part.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        if gradient_checkpointing:
            try:
                part.set_grad_checkpointing(True)
            except (AttributeError, AssertionError) as error:
                kind = type(part).__name__
                raise ConfigError(
                    f"model.gradient_checkpointing=true: {kind} has no gradient checkpointing."
                ) from error
        if count() > 1:
            synchronize(model, lambda: float(self._counts) if self.is_in_iteration else None)
            part.register_forward_hook(lambda module, images, output: self._keep_counts(output))
        is_shared = count() > 1 and isinstance(model, ContinualClassifier)
        if self._dtype is not None or self._compile or is_shared:
            part.__class__ = _with_engine(type(part), self)

    def refuse_own_loop(self, strategy: str) -> None:
        """Refuse what needs Avalanche's loop.

        Raises:
            ConfigError: the configuration asks for it.
        """
        asked = {
            "precision=fp16-mixed": self._scaler,
            "loader.workers": self.workers,
            "train.accumulate": self.accumulate > 1,
            "train.clip_norm": self._clip_norm,
            "train.mixup": self._mixup,
        }
        for key, value in asked.items():
            if value:
                raise ConfigError(f"{key} needs Avalanche's training loop, and {strategy} has its own.")

    # ---- an iteration -----------------------------------------------------------------------------------------------

    def parts(self, batch: list[Tensor], size: int) -> Iterator[list[Tensor]]:
        """The parts in which a batch goes through the model; each has its share of the loss.

        Args:
            batch: of this process; one image of no weight where there are fewer images than processes.
            size: of the whole batch.
        """
        own = share(size)
        self._parts = max(1, min(self.accumulate, size // count()))  # as many on all processes
        is_empty = own.start == own.stop
        whole = self._mixed(batch)
        split = (values.tensor_split(self._parts) for values in whole)
        for *part, others in zip(*split, strict=True) if self._parts > 1 else [whole]:
            self._others = others
            if count() * self._parts > 1:
                self._weight = 0.0 if is_empty else len(part[0]) * self._parts * count() / size
            yield part
        self._weight, self._kept = 1.0, None

    def _mixed(self, batch: list[Tensor]) -> list[Tensor]:
        """The batch, its images mixed with others, and the labels of these."""
        images, labels = batch[:2]
        if self._mixup is None:
            return [*batch, labels]
        if not images.is_floating_point():
            raise ConfigError(f"train.mixup is for images, and this benchmark gives numbers of {images.dtype}.")
        self._kept = float(torch.distributions.Beta(self._mixup, self._mixup).sample())
        return [self._kept * images + (1 - self._kept) * images.roll(1, 0), *batch[1:], labels.roll(1, 0)]

    def forward(self, forward: Callable[[], Any]) -> Any:
        """The forward pass of a part."""
        self._is_scaled, self._counts = True, self._weight > 0
        output = forward()
        self._counts = True
        return output

    def _keep_counts(self, output: Any) -> None:
        """Let images count as they do now when gradient checkpointing makes this pass again.

        Of several passes autograd goes through the last one first, and through each from its output on.
        """
        counts = self._counts
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: setattr(self, "_counts", counts))

    def loss(self, strategy: Any, criterion: Callable[[], Tensor]) -> Tensor:
        """The loss of a part: with mixup of both labels, and as much as its share of the batch."""
        loss = criterion()
        if self._kept is not None:
            labels, strategy.mbatch[1] = strategy.mbatch[1], self._others
            loss = self._kept * loss + (1 - self._kept) * criterion()
            strategy.mbatch[1] = labels
        return loss if self._weight == 1 else self._weight * loss

    def backward(self, loss: Tensor, retain_graph: bool) -> None:
        """Add the gradients of a part's loss to those of the weights."""
        loss = loss if self._parts == 1 else loss / self._parts
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
        self._is_scaled, self._counts = False, True

    def gradients_done(self, optimizer: Any, loss: Tensor) -> Tensor:
        """All parts have gone through: methods may look at the gradients now. Returns the loss of the whole batch."""
        if count() > 1:
            loss = loss.detach()
            average([*(weight.grad for weight in _weights(optimizer) if weight.grad is not None), loss])
        if self._scaler is not None:
            self._scaler.unscale_(optimizer)
        return loss

    def step(self, optimizer: Any) -> None:
        """The optimizer's."""
        if self._clip_norm is not None:
            nn.utils.clip_grad_norm_(_weights(optimizer), self._clip_norm)
        if self._scaler is None:
            optimizer.step()
        else:
            self._scaler.step(optimizer)
            self._scaler.update()
        same_random_numbers(self.device)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The scale of gradients."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self._scaler is not None:
            self._scaler.load_state_dict(state)

    # ---- a pass -----------------------------------------------------------------------------------------------------

    def call(self, forward: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """A pass of a module that begins now.

        Between two iterations all processes look at the same images, in evaluations for instance: without gradients
        each takes a share of them.
        """
        if count() == 1 or self.is_in_iteration or torch.is_grad_enabled() or len(args) != 1:
            return self._call(forward, module, *args, **kwargs)
        own = args[0][share(len(args[0]))]
        return joined(self._call(forward, module, own if len(own) else args[0][:1], **kwargs), len(args[0]))

    def _call(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        is_half = self._dtype is not None
        if self._scaler is not None:
            is_half = self._is_scaled or not torch.is_grad_enabled()
        with torch.autocast(self.device.type, self._dtype, enabled=is_half):
            output = self._compiled(forward, *args, **kwargs) if self._compile else forward(*args, **kwargs)
            return _to_float(output)

    def _compiled(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # The backward pass is compiled at once: what can fail fails here.
        with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
            try:
                return torch.compile(forward)(*args, **kwargs)
            except Exception as error:
                found = forward(*args, **kwargs)  # which fails if it is not compilation that failed
                self._compile = False
                why = shortened(" ".join(str(error).split()))
                self._say(f"  compile=true is left out, because torch cannot compile this model here ({why}).")
                return found


def _check_precision(name: Any, dtype: torch.dtype | None, device: torch.device) -> None:
    if dtype is None:
        return
    lacks = not torch.amp.is_autocast_available(device.type)
    if device.type == "cuda":
        lacks = dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False)
    if lacks:
        raise ConfigError(f"precision={name} is not for the device {device}, which lacks it: use precision=32.")


def _set_tf32(value: bool | None, device: torch.device) -> None:
    if value and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise ConfigError(f"tf32=true is for NVIDIA's GPUs from compute capability 8.0 on, and not for {device}.")
    torch.backends.cuda.matmul.allow_tf32 = value is True
    torch.backends.cudnn.allow_tf32 = value is not False


def _with_engine(kind: type[nn.Module], engine: Engine) -> type[nn.Module]:
    """The class of a module whose passes are an engine's; by its class, so that those of copies are, too."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return engine.call(kind.forward, self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward})


def _weights(optimizer: Any) -> list[nn.Parameter]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _to_float(output: Any) -> Any:
    """What a model returns, in float32: the tensors in its lists, tuples, dicts and what else torch goes through."""
    if isinstance(output, Tensor):
        return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output
    if not tree_is_leaf(output):
        return tree_map(_to_float, output)
    if not isinstance(output, dict):
        return output
    found = copy.copy(output)  # a kind of dict that torch does not know
    found.update({key: _to_float(value) for key, value in output.items()})
    return found
