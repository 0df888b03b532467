"""Models as configurations build them."""

import pytest
import torch

from ftp_cl.models import LinearHead, small_cnn
from ftp_cl.runs.build import built
from ftp_cl.runs.catalogue import entry, names

OPTIONS = {"timm": {"architecture": "test_resnet", "weights": "random"}}


IMAGES = [name for name in names("model") if name not in ("own", "text") and not entry("model", name).masks]


@pytest.mark.parametrize("name", IMAGES)
def test_every_model_is_built_and_runs(name):
    model = built("model", {"name": name, "head": "linear", **OPTIONS.get(name, {})})
    assert isinstance(model.head, LinearHead)
    channels = len(model.normalization.mean)
    assert model(torch.rand(2, channels, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "small_cnn", "widht": 3}, "model.widht is unknown"),
        ({"name": "small_cnn", "width": 0}, "must be a positive integer"),
        ({"name": "small_cnn", "width": "abc"}, "must be a positive integer"),
        ({"name": "small_cnn", "head": "lineal"}, "did you mean 'linear'"),
    ],
)
def test_errors_name_what_was_wrong_and_what_is_nearest(options, message):
    with pytest.raises(ValueError) as error:
        built("model", options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_width_sets_the_features():
    assert small_cnn(width=4).num_features == 16
