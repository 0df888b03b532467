"""Weight files as the field publishes them: MoCo v3, DINO, MAE, OpenCLIP, OpenAI's CLIP, averaged weights."""

import argparse
import warnings

import pytest
import timm
import torch

from ftp_cl.models import pretrained

VIT, RESNET = "test_vit", "resnet10t"


def backbone(name, seed=0, **options):
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False, num_classes=0, **options)


def prefixed(prefix, model):
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def assert_loads(name, content, tmp_path, expected):
    torch.save(content, tmp_path / "checkpoint.pth")
    loaded = pretrained(name, weights=tmp_path / "checkpoint.pth").backbone.state_dict()
    assert loaded.keys() == expected.state_dict().keys() and loaded
    for key, tensor in expected.state_dict().items():
        torch.testing.assert_close(loaded[key], tensor, atol=0, rtol=0, msg=key)


def moco(name, head):
    """main_moco.py: all of DistributedDataParallel(MoCo), with projector, predictor and the momentum encoder."""
    state = prefixed("module.base_encoder.", backbone(name))
    state |= {
        f"module.base_encoder.{head}.0.weight": torch.zeros(4, 4),
        f"module.base_encoder.{head}.4.bias": torch.zeros(4),
    }
    state |= prefixed("module.momentum_encoder.", backbone(name, seed=1)) | {
        "module.predictor.0.weight": torch.zeros(4)
    }
    return {"epoch": 300, "arch": name, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


@pytest.mark.parametrize(("name", "head"), [(VIT, "head"), (RESNET, "fc")])
def test_moco_v3_gives_its_base_encoder(tmp_path, name, head):
    assert_loads(name, moco(name, head), tmp_path, backbone(name))


def test_dino_gives_its_teacher(tmp_path):
    """main_dino.py: student in DistributedDataParallel, teacher without, arguments as a Namespace."""
    content = {
        "student": prefixed("module.backbone.", backbone(VIT, seed=1)) | {"module.head.mlp.0.weight": torch.zeros(4)},
        "teacher": prefixed("backbone.", backbone(VIT)) | {"head.last_layer.weight_g": torch.zeros(4)},
        "optimizer": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(arch="vit_small", lr=0.0005),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }
    assert_loads(VIT, content, tmp_path, backbone(VIT))


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_mae_gives_its_encoder(tmp_path, wrapper):
    """main_pretrain.py: encoder and decoder side by side, arguments as a Namespace."""
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 5, 8),
        "decoder_embed.weight": torch.zeros(8, 64),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
        "decoder_pred.bias": torch.zeros(8),
    }
    state = prefixed(wrapper, backbone(VIT)) | {wrapper + name: tensor for name, tensor in decoder.items()}
    content = {"model": state, "epoch": 800, "scaler": {"scale": 1.0}, "args": argparse.Namespace(model="mae")}
    assert_loads(VIT, content, tmp_path, backbone(VIT))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_averaged_weights_come_before_those_of_the_last_step(tmp_path, key):
    content = {"state_dict": backbone(VIT, seed=1).state_dict(), key: backbone(VIT).state_dict()}
    assert_loads(VIT, content, tmp_path, backbone(VIT))


def test_torchs_averaged_model_gives_its_average(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(backbone(VIT))
    assert_loads(VIT, averaged.state_dict(), tmp_path, backbone(VIT))


TEXT_TOWER = {
    "logit_scale": torch.tensor(2.0),
    "positional_embedding": torch.zeros(77, 8),
    "text_projection": torch.zeros(8, 4),
    "token_embedding.weight": torch.zeros(10, 8),
    "transformer.resblocks.0.ln_1.weight": torch.zeros(8),
    "ln_final.weight": torch.zeros(8),
}
OPENAI_ONLY = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}

CLIP_VIT = "vit_medium_patch32_clip_224"


def clip_vit(model):
    """The names of CLIP's VisionTransformer, written down from its code (github openai/CLIP, clip/model.py)."""
    own = model.state_dict()
    state = {
        "class_embedding": own["cls_token"][0, 0],
        "positional_embedding": own["pos_embed"][0],
        "proj": torch.zeros(own["norm.weight"].numel(), 4),
        "conv1.weight": own["patch_embed.proj.weight"],
    }
    for theirs, ours in {"ln_pre": "norm_pre", "ln_post": "norm"}.items():
        state |= {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    names = {
        "ln_1.": "norm1.",
        "ln_2.": "norm2.",
        "attn.in_proj_": "attn.qkv.",
        "attn.out_proj.": "attn.proj.",
        "mlp.c_fc.": "mlp.fc1.",
        "mlp.c_proj.": "mlp.fc2.",
    }
    for number in range(len(model.blocks)):
        for theirs, ours in names.items():
            state |= {
                f"transformer.resblocks.{number}.{theirs}{kind}": own[f"blocks.{number}.{ours}{kind}"]
                for kind in ("weight", "bias")
            }
    return {f"visual.{name}": tensor for name, tensor in state.items()}


def halved(tensors):
    return {name: tensor.half() if tensor.ndim else tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def vit():
    """Weights that half precision holds exactly, as OpenAI's files are in it."""
    model = backbone(CLIP_VIT, depth=1)
    model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    return model


@pytest.mark.parametrize(
    "saved",
    [
        lambda tower: halved(tower | TEXT_TOWER) | OPENAI_ONLY,
        lambda tower: tower | TEXT_TOWER,
        lambda tower: {
            "epoch": 1,
            "name": "run",
            "state_dict": {f"module.{k}": v for k, v in (tower | TEXT_TOWER).items()},
        },
    ],
    ids=["openai", "open_clip", "open_clip training"],
)
def test_a_whole_clip_gives_its_visual_tower(tmp_path, vit, saved):
    torch.save(saved(clip_vit(vit)), tmp_path / "clip.pt")
    loaded = pretrained(CLIP_VIT, weights=tmp_path / "clip.pt", depth=1).backbone.state_dict()
    assert loaded.keys() == vit.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in vit.state_dict().items())


def test_openclip_with_a_tower_of_timm_gives_it(tmp_path):
    state = {f"module.visual.trunk.{name}": tensor for name, tensor in backbone(VIT).state_dict().items()}
    state |= {"module.visual.head.proj.weight": torch.zeros(4, 4)} | {f"module.{k}": v for k, v in TEXT_TOWER.items()}
    assert_loads(VIT, {"state_dict": state}, tmp_path, backbone(VIT))


def clip_resnet_name(name):
    """A name of timm's byobnet as in CLIP's ModifiedResNet (clip/model.py)."""
    part, *rest = name.split(".")
    if part == "stem":  # conv1.conv.weight, conv1.bn.weight
        layer, kind, what = rest
        return f"visual.{'conv' if kind == 'conv' else 'bn'}{layer[-1]}.{what}"
    if part == "head":
        return (
            "visual.attnpool."
            + {
                "pos_embed": "positional_embedding",
                **{f"{letter}.{kind}": f"{letter}_proj.{kind}" for letter in "qkv" for kind in ("weight", "bias")},
                **{f"proj.{kind}": f"c_proj.{kind}" for kind in ("weight", "bias")},
            }[".".join(rest)]
        )
    stage, block, layer, *what = rest
    place = f"visual.layer{int(stage) + 1}.{block}"
    if layer == "shortcut":  # conv.conv.weight, conv.bn.weight
        return f"{place}.downsample.{0 if what[1] == 'conv' else 1}.{what[2]}"
    number = layer[len("conv")]
    return f"{place}.{'conv' if what[0] == 'conv' else 'bn'}{number}.{what[1]}"


@pytest.mark.slow
def test_the_resnet_of_openais_clip_gives_its_visual_tower(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("resnet50_clip", pretrained=False)
    state = {clip_resnet_name(name): tensor for name, tensor in whole.state_dict().items()}
    torch.save(state | TEXT_TOWER | OPENAI_ONLY, tmp_path / "RN50.pt")
    loaded = pretrained("resnet50_clip.openai", weights=tmp_path / "RN50.pt").backbone.state_dict()
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in loaded.items()) and len(loaded) > 250


@pytest.mark.parametrize(
    ("name", "equivalent"),
    [
        ("vit_base_patch16_clip_224.laion2b", "vit_base_patch16_clip_quickgelu_224.openai"),
        (VIT, "one of .*resnet50_clip.openai"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_is_refused_with_its_equivalent(tmp_path, name, equivalent):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-16.pt")
    with pytest.raises(
        ValueError, match=f"ViT-B-16.pt is a TorchScript archive, .* from the hub, {equivalent}"
    ) as error:
        pretrained(name, weights=tmp_path / "ViT-B-16.pt")
    assert "\n" not in str(error.value)


def test_other_classes_in_a_file_are_still_refused(tmp_path):
    torch.save({"model": backbone(VIT).state_dict(), "args": tmp_path}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="could run code when loaded"):
        pretrained(VIT, weights=tmp_path / "w.pth")


@pytest.mark.parametrize(("infix", "warns"), [("", True), ("quickgelu_", False)])
def test_weights_under_the_name_of_another_activation_than_theirs_are_warned_of(tmp_path, infix, warns):
    """timm has the names of OpenAI's ViT-L/14 in both forms; a model of one layer stands for it."""
    name = f"vit_large_patch14_clip_{infix}224.openai"
    sizes = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 28}
    torch.save(timm.create_model(name, pretrained=False, num_classes=0, **sizes).state_dict(), tmp_path / "weights.pt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = pretrained(name, weights=tmp_path / "weights.pt", **sizes)
        pretrained(name, weights="random", **sizes)
    activation = type(model.backbone.blocks[0].mlp.act).__name__
    assert activation == ("GELU" if warns else "QuickGELU")
    assert [str(w.message) for w in caught] == [
        "The weights vit_large_patch14_clip_224.openai were trained with QuickGELU, but a model of this name computes "
        "GELU, which gives other features: take vit_large_patch14_clip_quickgelu_224.openai unless that is meant."
    ] * warns


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "visual.conv1.weight"])
def test_patches_of_another_size_are_resized_only_where_that_is_asked_for(tmp_path, name):
    sizes = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 64}
    state = backbone("vit_base_patch16_224", **sizes).state_dict()
    torch.save({name if key == "patch_embed.proj.weight" else key: state[key] for key in state}, tmp_path / "16.pt")
    with pytest.raises(ValueError, match="patches have 16 x 16 pixels instead of 32 x 32; patch_size=32 would resize"):
        pretrained("vit_base_patch32_224", weights=tmp_path / "16.pt", **sizes)
    if name == "patch_embed.proj.weight":
        model = pretrained("vit_base_patch16_224", weights=tmp_path / "16.pt", patch_size=32, **sizes)
        assert model.backbone.pos_embed.shape[1] == 5
