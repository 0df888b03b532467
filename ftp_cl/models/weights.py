"""Weight files: read them without running code from them, and fit them into a timm model."""

import argparse
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

_NESTED_KEYS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model")
"""Under which training scripts save a state dict; averaged weights (EMA; DINO's teacher) come first, as in timm."""

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")

_PART_PREFIXES = ("base_encoder.", "visual.trunk.", "backbone.")
"""Of the backbone among other parts: MoCo v3, OpenCLIP with towers of timm; DINO and ``ContinualClassifier``."""

_BESIDE = ("decoder_", "n_averaged")
"""Beginnings of names beside a backbone that has none of them: MAE's decoder, torch's ``AveragedModel``."""

_MASK_TOKEN = "mask_token"  # of MAE; in files of DINOv2 timm's converter knows them by it

_NAMED_AT_MOST = 3

_PATCHES = "patch_embed.proj.weight"
_PATCHES_OF_OTHERS = (_PATCHES, "visual.conv1.weight")  # the second is that of OpenAI's CLIP and OpenCLIP


def read_tensors(path: Path, architecture: str = "") -> dict[str, Tensor]:
    """Read a weight file: safetensors by its suffix, anything else by ``torch.load`` with ``weights_only=True``.

    A state dict may stand under a key, as training scripts save it: "state_dict", "model", or, before these, averaged
    weights: "state_dict_ema", "model_ema", "teacher". Beside it there may be numbers, text and an
    ``argparse.Namespace`` of these, as in the files of DINO and MAE.

    Args:
        path: of the file.
        architecture: what it is for; a refusal names its equivalent on the hub.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, could run code when loaded, holds no state dict, or tensors that are not dense.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    content: Any
    if path.suffix == ".safetensors":
        check_safetensors(path)
        content = safetensors.torch.load_file(path)
    else:
        content = _read_torch(path, architecture)
    for key in _NESTED_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    is_named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not is_named or not content or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(
            f'{path} holds no state dict: expected names to tensors, at the top or under "state_dict" or "model"'
        )
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise ValueError(f"{path} holds no plain tensor under {name}: save dense ones that have values")
    return content


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is whole, by its header.

    Raises:
        ValueError: It is not.
    """
    try:
        with safetensors.safe_open(path, "pt"):
            pass
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _read_torch(path: Path, architecture: str) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):  # which a state dict has not
            raise ValueError(
                f"{path} is a TorchScript archive, which holds code: leave weights out and take the same weights from "
                f"the hub, {_equivalent(architecture)}, or save the state dict alone, "
                "torch.save(model.state_dict(), path)"
            )
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # on sparse tensors, which are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which could run code when loaded: "
            "save the plain state dict, torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:
        # On damaged files torch raises what its parser happened to meet: OSError, KeyError, UnicodeDecodeError, ...
        raise ValueError(f"{path} is damaged or no file that torch.save wrote ({type(error).__name__})") from error


def _equivalent(architecture: str) -> str:
    """The name of OpenAI's weights in timm: what is published as TorchScript is CLIP's, trained with QuickGELU."""
    import timm

    plain = architecture.partition(".")[0]
    native = plain if "quickgelu" in plain else plain.replace("_clip_", "_clip_quickgelu_")
    known = timm.list_pretrained("*_clip*.openai")
    found = [f"{name}.openai" for name in (native, plain) if f"{name}.openai" in known]
    return found[0] if found else f"one of {', '.join(known)}"


def load_by_name(
    tensors: dict[str, Tensor], model: nn.Module, *, classifiers: tuple[str, ...], architecture: str, source: str
) -> None:
    """Load ``tensors`` into a timm ``model`` without classifier.

    Prefixes of wrappers ("module.", "_orig_mod."), and what is beside the backbone (heads, predictors, decoders, text
    towers), are dropped: in files of MoCo v3, DINO, MAE, OpenCLIP, and of ``ContinualClassifier``. Where that does not
    fit, timm's converter of the architecture is tried: it renames older layouts and CLIP's own, and resizes position
    embeddings.

    Args:
        tensors: From the file, with or without the classifier's.
        model: Built with ``num_classes=0``.
        classifiers: Names of the classifier's modules in the architecture; their tensors are dropped.
        architecture: Its name, for the message.
        source: Where the tensors are from, for the message.

    Raises:
        ValueError: The tensors do not fit; says which.
    """
    tensors = _without_wrappers(tensors, model)
    left_out = () if _MASK_TOKEN in model.state_dict() else (_MASK_TOKEN,)
    fitting = _without((*classifiers, *left_out), tensors)
    problem = _misfit(fitting, model)
    if problem:
        fitting = _without(classifiers, _converted(tensors, model))
        if _misfit(fitting, model):
            raise ValueError(f"{source} does not fit {architecture}: {problem}")
    model.load_state_dict(fitting)


def check_patches(tensors: dict[str, Tensor], model: nn.Module, *, architecture: str, source: str) -> None:
    """Check that a ViT has patches of the size in a file: timm's converters would resize their embeddings silently.

    Raises:
        ValueError: The sizes differ.
    """
    own = model.state_dict().get(_PATCHES)
    found = next((tensor for name, tensor in tensors.items() if name.endswith(_PATCHES_OF_OTHERS)), None)
    if own is not None and found is not None and found.ndim == own.ndim == 4 and found.shape[2:] != own.shape[2:]:
        (height, width), (own_height, own_width) = found.shape[2:], own.shape[2:]
        raise ValueError(
            f"{source} does not fit {architecture}: its patches have {height} x {width} pixels instead of "
            f"{own_height} x {own_width}; patch_size={own_height} would resize their embeddings"
        )


def load_in_order(tensors: dict[str, Tensor], model: nn.Module, *, architecture: str, source: str) -> None:
    """Load ``tensors`` into ``model`` by position, for files whose names differ and whose order agrees.

    Raises:
        ValueError: The number of tensors or a shape differs; names the first that does.
    """
    expected = model.state_dict()
    if len(tensors) != len(expected):
        raise ValueError(f"{source} does not fit {architecture}: {len(tensors)} tensors instead of {len(expected)}")
    for (name, tensor), (model_name, model_tensor) in zip(tensors.items(), expected.items(), strict=True):
        if tensor.shape != model_tensor.shape:
            raise ValueError(
                f"{source} does not fit {architecture}: {name} is {list(tensor.shape)} in the file, "
                f"and {model_name}, which has its place in the model, is {list(model_tensor.shape)}"
            )
    model.load_state_dict(dict(zip(expected, tensors.values(), strict=True)))


def _without_wrappers(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Strip what wrappers and frameworks put before the names of a backbone, and what is beside it."""
    own = model.state_dict().keys()
    # Wrappers twice: torch.compile may wrap DataParallel, or DataParallel torch.compile.
    for prefix in 2 * _WRAPPER_PREFIXES + _PART_PREFIXES + _WRAPPER_PREFIXES:
        tensors = {name: value for name, value in tensors.items() if name in own or not name.startswith(_BESIDE)}
        if any(name.startswith(prefix) for name in own):
            continue
        stripped = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        # Beside a part there are others, which are dropped; a wrapper holds all there is.
        if stripped and (len(stripped) == len(tensors) or prefix in _PART_PREFIXES):
            tensors = stripped
    return tensors


def _without(modules: tuple[str, ...], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name: tensor for name, tensor in tensors.items() if not (name in modules or name.startswith(prefixes))}


def _converted(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Apply the converter that the module of a timm model offers, if it does."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        return convert(dict(tensors), model)
    except Exception:
        # Fed with another architecture's tensors, converters fail in ways of their own; the misfit says more.
        return tensors


def _misfit(tensors: dict[str, Tensor], model: nn.Module) -> str:
    """Say in what ``tensors`` and the model's state dict differ; empty where they fit."""
    expected = model.state_dict()
    # torch fills in the counters of BatchNorm, which files from before version 0.4.1 lack.
    missing = [name for name in expected if name not in tensors and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in tensors if name not in expected]
    reshaped, converted = [], []
    for name, found in ((name, tensors[name]) for name in expected if name in tensors):
        own = expected[name]
        if found.shape != own.shape:
            reshaped.append(f"{name} is {list(found.shape)} in the file and {list(own.shape)} in the model")
        if own.is_floating_point() and not found.is_floating_point():
            converted.append(f"{name} is {found.dtype} in the file and {own.dtype} in the model")
    problems = (("missing ", missing), ("unexpected ", unexpected), ("", reshaped), ("", converted))
    return "; ".join(_listed(what, names) for what, names in problems if names)


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return what + ", ".join(names[:_NAMED_AT_MOST]) + more
