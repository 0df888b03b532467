"""peft's adapters: the change that each makes of a weight, and the factor whose rows scale that change's rows.

Plain LoRA: dW = s B A, in which row r of B scales row r of dW. A row is what feeds one output unit, whatever the layout
of the base weight; of an embedding, one token, which a column of `lora_embedding_A` scales. LoHa: dW is the elementwise
product of two such products. VeRA: its vector b scales the rows. The base weight is never read.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ftp_cl.optim.names import canonical_name
from ftp_cl.optim.sharding import local, whole
from ftp_cl.projection import Sharding
from ftp_cl.projection.backends.factored import row_norms_of

BASE_IS_CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations (`init_lora_weights`, up to a suffix) that take the adapter's first change out of the base weight."""


class Adapter:
    """One adapter of one layer: plain LoRA of a matrix or a convolution.

    Args:
        layer: peft's layer.
        key: the adapter's name in peft.
        where: the layer's canonical name.
        init: `init_lora_weights` of its configuration.

    Attributes:
        name: canonical name of the factor that is written; the first one's, of adapters that are tied.
        written: that parameter, and those of other layers over the same memory, each with its adapter.
        transposed: whether columns of the factor that is written scale the rows.
    """

    transposed = False

    def __init__(self, layer: Any, key: str, where: str, init: Any = True) -> None:
        self.layer, self.key, self.where, self.init = layer, key, where, init
        self.name = ""
        self.written: dict[nn.Parameter, Adapter] = {self.factors()[0]: self}

    def factors(self) -> list[nn.Parameter]:
        """All its parameters, the one that is written first."""
        return [self.layer.lora_B[self.key].weight, self.layer.lora_A[self.key].weight]

    @property
    def scale(self) -> float:
        """s, as it is now."""
        return float(self.layer.scaling[self.key])

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """See `Factored`; with gradients. A grouped convolution's row uses its group's rows of A."""
        factor, other = (local(self.factors()[0]), whole(self.factors()[1]))
        groups, rank = self._groups(), len(other)
        return [(factor.reshape(groups, -1, rank // groups), other.reshape(groups, rank // groups, -1))]

    def _groups(self) -> int:
        return getattr(self.layer.lora_B[self.key], "groups", 1)

    def rows(self, tensor: Tensor) -> Tensor:
        """A view of shape [rows, elements] of the factor that is written, or its gradient."""
        if self.transposed:
            return tensor.t()
        return tensor if tensor.dim() == 2 else tensor.view(tensor.shape[0], -1)

    def gradient(self) -> Tensor:
        """Of the factor that is written, shape as `rows`: the sum of those of tied ones that have one."""
        found = [
            adapter.rows(local(parameter.grad).contiguous())
            for parameter, adapter in self.written.items()
            if parameter.grad is not None
        ]
        return sum(found[1:], found[0])

    def zeroed(self) -> nn.Parameter:
        """The factor that peft sets to 0 at first."""
        return self.factors()[0]

    def norms(self) -> Tensor:
        """n_r(dW) of the rows that this process has, as they are now."""
        return row_norms_of([self])[0]

    def longest_row(self, sharding: Sharding | None = None) -> Tensor:
        """The largest of them that is finite, 0-d; 0 if there is none."""
        norms = self.norms()
        longest = torch.cat([norms.where(norms.isfinite(), 0.0), norms.new_zeros(1)]).max()
        if sharding is not None:
            dist.all_reduce(longest, op=dist.ReduceOp.MAX, group=sharding.group)
        return longest

    @property
    def exists(self) -> bool:
        """Whether peft has not deleted it."""
        return any(container is not None and self.key in container for container in self._containers())

    @property
    def is_trained(self) -> bool:
        """Whether it is active, and not frozen."""
        return self.exists and self.key in self.layer.active_adapters and self.factors()[0].requires_grad

    def _containers(self) -> list[Any]:
        return [getattr(self.layer, name, None) for name in self.layer.adapter_layer_names]

    def check_step(self) -> None:
        """Raise a ValueError for an adapter whose factors must not move now."""
        if self.layer.merged_adapters and self.key in self.layer.merged_adapters:
            raise ValueError(
                f"Adapter {self.key!r} of {self.where} is merged into the base weight, and a step of its factors would "
                "make peft subtract another change than it has added: unmerge_adapter() before the step."
            )
        if not self.exists:
            raise ValueError(
                f"Adapter {self.key!r} of {self.where} has been deleted since its gradient was taken: make an "
                "optimizer without its parameters, or zero_grad() before the step."
            )

    def problem(self) -> str | None:
        """Why FTP cannot bound its change; None: it can."""
        factor = self.factors()[0]
        if factor.dtype == torch.float16:
            return "is of float16, in which a first radius of 1e-8 is 0: keep adapters in float32 or bfloat16"
        if any(parameter.requires_grad for parameter in self.factors()) and not factor.requires_grad:
            return "trains factors while the one whose rows scale its change is frozen"
        if hasattr(factor, "placements") and (type(self) is not Adapter or self._groups() > 1):
            return "is sharded over processes, and that is done for LoRA of matrices and convolutions without groups"
        if str(self.init).lower().startswith(BASE_IS_CHANGED) and not factor.is_meta and self._changes():
            return (
                f"begins with a change that its initialisation {self.init!r} has taken out of the base weight, so that "
                "shrinking it would cut pretrained weights away: ftp_cl.optim.next_adapter(model) keeps that change in "
                "a frozen adapter and goes on from 0 with the same A"
            )
        return None

    def _changes(self) -> bool:
        """Whether the change is more than the rounding of a product that is 0."""
        longest = sum((left.abs() @ right.abs()).sum().item() for left, right in self.pairs())
        return bool((self.norms() - 1e-8).sum().item() > 1e-4 * abs(self.scale) * longest)


class EmbeddingAdapter(Adapter):
    """LoRA of an embedding: dW = s (B A)^T, a row a token."""

    transposed = True

    def factors(self) -> list[nn.Parameter]:
        """`lora_embedding_A`, which starts at 0, first."""
        return [self.layer.lora_embedding_A[self.key], self.layer.lora_embedding_B[self.key]]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """See `Factored`."""
        factor, other = (parameter.t().unsqueeze(0) for parameter in self.factors())
        return [(factor, other)]


class BiasAdapter(Adapter):
    """The bias that `lora_bias=True` brings, s b: one row, as any bias."""

    def factors(self) -> list[nn.Parameter]:
        """The bias."""
        return [self.layer.lora_B[self.key].bias]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """See `Factored`."""
        bias = self.factors()[0].view(1, 1, -1)
        return [(bias.new_ones(1, 1, 1), bias)]

    def rows(self, tensor: Tensor) -> Tensor:
        """All of it."""
        return tensor.view(1, -1)


class LoHaAdapter(Adapter):
    """LoHa: dW = s (w1_a w1_b) * (w2_a w2_b), elementwise."""

    @property
    def scale(self) -> float:
        """As peft rounds it, to float32."""
        return torch.tensor(super().scale, device="cpu").item()

    def factors(self) -> list[nn.Parameter]:
        """`hada_w1_a` first."""
        return [container[self.key] for container in self._containers() if self.key in container]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """See `Factored`."""
        return [self._pair("1"), self._pair("2")]

    def zeroed(self) -> nn.Parameter:
        """`hada_w2_b`."""
        factor: nn.Parameter = self.layer.hada_w2_b[self.key]
        return factor

    def _pair(self, number: str) -> tuple[Tensor, Tensor]:
        factor, other = (getattr(self.layer, f"hada_w{number}_{side}")[self.key] for side in "ab")
        return factor.unsqueeze(0), other.unsqueeze(0)


class VeRAAdapter(Adapter):
    """VeRA: dW = diag(b) B diag(d) A with frozen random A and B, of which a layer uses a corner."""

    scale = 1.0

    def factors(self) -> list[nn.Parameter]:
        """B first."""
        return [self.layer.vera_lambda_b[self.key], self.layer.vera_lambda_d[self.key]]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """See `Factored`."""
        b, d = (parameter.unsqueeze(1) for parameter in self.factors())
        left = self.layer.vera_B[self.key][: self.layer.out_features].to(b.device)
        right = self.layer.vera_A[self.key][:, : self.layer.in_features].to(b.device)
        return [((b * left).unsqueeze(0), (d * right).unsqueeze(0))]

    def rows(self, tensor: Tensor) -> Tensor:
        """An element each."""
        return tensor.view(-1, 1)


class Unbounded:
    """An adapter whose change FTP cannot bound.

    Args:
        where: the layer's canonical name.
        kind: what it is, as the end of a sentence.
        parameters: those that it trains.
    """

    def __init__(self, where: str, kind: str, parameters: list[nn.Parameter]) -> None:
        self.where, self.kind, self.parameters = where, kind, parameters


def adapters_in(model: nn.Module) -> Iterator[Adapter | Unbounded]:
    """The adapters of all peft's layers in a model, frozen ones and those not active included."""
    if "peft" not in sys.modules:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    configs: dict[str, Mapping[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(own := getattr(module, "peft_config", None), Mapping):
            configs[name] = own
        if isinstance(module, BaseTunerLayer):
            above = name  # several of peft's models in one may have adapters of one name
            while above and above not in configs:
                above = above.rpartition(".")[0]
            inits = {key: getattr(own, "init_lora_weights", True) for key, own in configs.get(above, {}).items()}
            yield from _of_layer(module, canonical_name(f"{name}.x")[:-2], inits)


def _of_layer(layer: Any, where: str, inits: Mapping[str, Any]) -> Iterator[Adapter | Unbounded]:
    from peft.tuners.adalora.layer import AdaLoraLayer
    from peft.tuners.ln_tuning.layer import LNTuningLayer
    from peft.tuners.loha.layer import LoHaLayer
    from peft.tuners.lora.layer import LoraLayer, MultiheadAttention, ParamWrapper
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
    from peft.tuners.vera.layer import VeraLayer

    if isinstance(layer, (LNTuningLayer, TrainableTokensLayer)):
        return  # they train copies of weights, which are projected as any weights
    if isinstance(layer, LoHaLayer):
        for key in layer.hada_w1_a:
            if key in layer.hada_t1:  # peft 0.21 computes another gradient of hada_w1_a than the loss has
                yield Unbounded(where, "LoHa with use_effective_conv2d", _parameters_of(layer, key))
            else:
                yield LoHaAdapter(layer, key, where)
    elif isinstance(layer, VeraLayer):
        yield from (VeRAAdapter(layer, key, where) for key in layer.vera_lambda_b)
    elif isinstance(layer, LoraLayer) and not isinstance(layer, (AdaLoraLayer, MultiheadAttention, ParamWrapper)):
        for key in layer.lora_embedding_A:
            if key not in layer.lora_variant:
                yield EmbeddingAdapter(layer, key, where, inits.get(key, True))
        for key, module in layer.lora_B.items():
            if key in layer.lora_variant:
                continue
            if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
                yield Unbounded(where, type(module).__name__, _parameters_of(layer, key))
                continue
            yield Adapter(layer, key, where, inits.get(key, True))
            if module.bias is not None:
                yield BiasAdapter(layer, key, where)
        for key, variant in layer.lora_variant.items():
            yield Unbounded(where, type(variant).__name__, _parameters_of(layer, key))
    else:
        kind = f"{type(layer).__module__.split('.')[2]}'s {type(layer).__name__}"
        parameters = _parameters_of(layer)
        if isinstance(layer, MultiheadAttention):  # peft 0.21 merges the output projection's change twice in forward
            parameters += _parameters_of(layer.base_layer.out_proj)
        yield Unbounded(where, kind, parameters)


def _parameters_of(layer: Any, key: str | None = None) -> list[nn.Parameter]:
    """Those of one adapter of a layer, or of all."""
    found: list[nn.Parameter] = []
    for name in layer.adapter_layer_names:
        container = getattr(layer, name, None)
        if isinstance(container, nn.Parameter):
            found.append(container)
        elif isinstance(container, nn.Module):
            for own, parameter in container.named_parameters():
                if key is None or own.split(".")[0] == key:
                    found.append(parameter)
    return found
