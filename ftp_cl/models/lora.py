"""LoRA (Hu et al. 2022, arXiv 2106.09685) on a backbone: peft's layers in place, everything else frozen."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn


def add_lora(
    backbone: nn.Module, rank: int = 8, alpha: float | None = None, targets: str | Sequence[str] | None = None
) -> None:
    """Put peft's LoRA adapter on layers of ``backbone``, in place, and freeze its other weights.

    Args:
        backbone: A timm or transformers model, or any module.
        rank: Of the adapter's matrices.
        alpha: The adapter is scaled by alpha / rank; None for 2 * rank.
        targets: Names, or ends of names, of the layers; None for all ``nn.Linear``.

    Raises:
        ModuleNotFoundError: peft is not installed.
        ValueError: A value is out of range, or no layer is called like a target.
    """
    try:
        import peft
    except ModuleNotFoundError:
        raise ModuleNotFoundError("lora needs peft: pip install 'ftp-cl[lora]'") from None
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if not (chosen := linear if targets is None else [targets] if isinstance(targets, str) else list(targets)):
        raise ValueError("lora: the model has no linear layer: name its layers, lora={targets: [...]}")
    options: dict[str, Any] = {"r": rank, "lora_alpha": 2 * rank if alpha is None else alpha}
    try:
        peft.inject_adapter_in_model(peft.LoraConfig(**options, target_modules=chosen), backbone)
    except (ValueError, TypeError) as error:
        words = " ".join(str(error).split())
        raise ValueError(f"lora={{rank: {rank}, targets: {targets}}} does not fit the model: {words}") from error


def merged(backbone: nn.Module) -> nn.Module:
    """Return a copy of a backbone in which adapters of ``add_lora`` are added to the weights below; itself without."""
    names = [name for name, module in backbone.named_modules() if hasattr(module, "base_layer")]
    backbone = copy.deepcopy(backbone) if names else backbone
    for name in names:
        layer: Any = backbone.get_submodule(name)
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(parent), own, layer.base_layer)
    return backbone
