"""How images are made for pretrained weights, against Pillow's own operations."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ftp_cl.models import Preprocessing, pretrained
from ftp_cl.models.backbones import models_preprocessing

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8))


def test_the_shorter_side_is_resized_and_the_middle_cut_out(image):
    made = Preprocessing(40, "bicubic", 0.9, "center", MEAN, STD)(image)
    # floor(40 / 0.9) = 44; 90 * 44 / 61 = 64.9; the middle 40 of 64 begin at 12, of 44 at 2.
    expected = image.resize((64, 44), Image.Resampling.BICUBIC).crop((12, 2, 52, 42))
    assert np.array_equal(made, expected)


def test_squash_resizes_both_sides(image):
    made = Preprocessing(40, "bilinear", 1.0, "squash", MEAN, STD)(image)
    assert np.array_equal(made, image.resize((40, 40), Image.Resampling.BILINEAR))


def test_what_timm_records_is_the_default():
    found = models_preprocessing("vit_base_patch16_clip_224.openai")
    assert (found.size, found.interpolation, found.crop, found.crop_mode) == (224, "bicubic", 0.9, "center")
    assert found.mean == (0.48145466, 0.4578275, 0.40821073) and found.std == (0.26862954, 0.26130258, 0.27577711)
    assert models_preprocessing("vit_base_patch16_clip_384.openai_ft_in1k").crop_mode == "squash"


def test_the_model_says_how_its_images_are_made_and_arguments_change_it(image):
    model = pretrained("test_vit", weights="random", crop=1.0, mean=(0, 0, 0), img_size=64)
    assert model.preprocessing == Preprocessing(64, "bicubic", 1.0, "center", (0, 0, 0), (0.5, 0.5, 0.5))
    assert model.normalization.mean.flatten().tolist() == [0, 0, 0]
    assert model.preprocessing(image).size == (64, 64)


def test_images_are_as_timms_own_evaluation_makes_them(image):
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("test_vit.r160_in1k").to_dict())
    theirs = timm.data.create_transform(**config)(image)
    model = pretrained("test_vit.r160_in1k", weights="random")
    ours = torch.from_numpy(np.array(model.preprocessing(image))).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(model.normalization(ours)[0], theirs, atol=1e-6, rtol=0)


def test_the_packaged_model_has_one_too():
    found = pretrained("efficientnet_lite0", weights="random").preprocessing
    assert (found.size, found.interpolation, found.crop) == (224, "bicubic", 0.875)
    assert found.mean == (127 / 255,) * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation='cubic' is unknown: choose one of nearest"),
        ({"crop": 0}, "crop=0 must be a share"),
        ({"crop": 90}, "crop=90 must be a share"),
        ({"crop_mode": "middle"}, "crop_mode='middle' is unknown"),
        ({"mean": [0.5]}, r"mean=\[0.5\] must be three numbers"),
        ({"std": [0, 1, 1]}, r"std=\[0, 1, 1\] must be above 0"),
        ({"size": 1.5}, "size=1.5 is no number of pixels"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        models_preprocessing("test_vit", **changes)


def test_weights_for_oblong_images_need_a_size():
    with pytest.raises(ValueError, match="images of 1024 x 768 pixels"):
        models_preprocessing("vit_base_patch16_sapiens2.fb")
    assert models_preprocessing("vit_base_patch16_sapiens2.fb", size=256).size == 256


def test_every_model_of_timm_has_one():
    odd = {"vit_5b_patch16_sapiens2", "vit_base_patch16_sapiens2", "vit_giant_patch16_sapiens2"}
    odd |= {"vit_huge_patch16_sapiens2", "vit_large_patch16_sapiens2"}
    for name in set(timm.list_models()) - odd:
        assert models_preprocessing(name).size >= 32, name
