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
