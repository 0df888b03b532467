"""Names of parameters, and what `exclude` selects."""

import pytest
from torch import nn

from ftp_cl.optim import FTP
from ftp_cl.optim.names import aliases, canonical_name, match


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv.weight", "conv.weight"),
        ("module.conv.weight", "conv.weight"),
        ("_orig_mod.conv.weight", "conv.weight"),
        ("module._orig_mod.conv.weight", "conv.weight"),
        ("_orig_mod.module.conv.weight", "conv.weight"),
        ("blocks.0._orig_mod.conv.weight", "blocks.0.conv.weight"),
        ("_forward_module.conv.weight", "conv.weight"),
        ("_original_module.conv.weight", "conv.weight"),
        ("submodule.weight", "submodule.weight"),
        ("blocks.0._checkpoint_wrapped_module.conv.weight", "blocks.0.conv.weight"),
        ("_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.weight", "blocks.0.weight"),
        ("encoder.module.conv.weight", "encoder.conv.weight"),
        ("base_model.model.model.layers.0.q.base_layer.weight", "model.layers.0.q.weight"),
        ("module.encoder.base_model.model.q.lora_A.default.weight", "encoder.q.lora_A.default.weight"),
        ("my_orig_mod.database_model.model.weight", "my_orig_mod.database_model.model.weight"),
        ("module", "module"),
    ],
)
def test_canonical_names_lack_what_wrappers_add(name, expected):
    assert canonical_name(name) == expected


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ((), set()),
        ("head", {"head.weight", "head.bias"}),
        ("head.weight", {"head.weight"}),
        ("*.bias", {"conv.bias", "norm.bias", "head.bias"}),
        ("?orm.*", {"norm.weight", "norm.bias"}),
        (["scale", "conv"], {"scale", "conv.weight", "conv.bias"}),
        (nn.BatchNorm2d, {"norm.weight", "norm.bias"}),
        ({nn.Linear, "scale"}, {"head.weight", "head.bias", "scale"}),
        ("module.head", {"head.weight", "head.bias"}),
    ],
)
def test_exclude_selects_by_name_module_pattern_and_type(model, exclude, expected):
    assert match(exclude, model) == expected


def test_patterns_see_names_as_they_are_and_without_wrappers():
    names = ["m.0.base_layer.weight", "m.0.lora_A.weight", "m.1._orig_mod.weight"]
    named = {name: nn.Parameter(nn.Linear(1, 1).weight.detach()) for name in names}
    assert match("*.base_layer.*", named) == {"m.0.weight"}
    assert match("m.?.weight", named) == {"m.0.weight", "m.1.weight"}
    assert match("m.1", named) == match("m._orig_mod.1", named) == {"m.1.weight"}


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ("haed", r"exclude='haed' matches no parameter; the nearest are .*head"),
        ("conv.wieght", "conv.weight"),
        ("zzzzzzzzzzzz", "matches no parameter; the last of the model's are head.weight, head.bias"),
        (["head", "fc"], "exclude='fc' matches no parameter"),
        ("hea", "head"),
        (nn.LayerNorm, "exclude=LayerNorm matches no module"),
    ],
)
def test_an_entry_that_selects_nothing_names_the_nearest(model, exclude, message):
    with pytest.raises(ValueError, match=message):
        FTP(model, exclude=exclude)


def test_a_module_type_needs_the_module(model):
    with pytest.raises(ValueError, match="needs the module"):
        FTP(model.named_parameters(), exclude=nn.Linear)


def test_a_generator_of_named_parameters_will_do(model):
    ftp = FTP(model.named_parameters(), exclude="head")
    assert ftp.projected_names() == ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias"]


def test_tied_weights_have_all_their_names(model):
    model.tied = nn.Linear(4, 3)
    model.tied.weight = model.head.weight
    assert ["head.weight", "tied.weight"] in aliases(model).values()
    assert "head.weight" not in FTP(model, exclude="tied.weight").projected_names()


def test_two_parameters_of_one_name_are_refused():
    encoder, decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Two parameters are called 'weight'.*'encoder.weight'"):
        FTP([*encoder.named_parameters(), *decoder.named_parameters()])
