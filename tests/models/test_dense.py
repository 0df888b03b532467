"""Models of a class for each pixel: growth, sizes, and weights that are those of the package."""

import pytest
import torch
from torch import nn

from ftp_cl.models import pretrained
from ftp_cl.models.dense import MaskHead, segmenter
from ftp_cl.plugins import FreezeBatchNorm, find_classifier


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return segmenter().eval()


def test_masks_have_the_size_of_the_image_whatever_that_is(model):
    assert model(torch.rand(1, 3, 40, 72)).shape == (1, 2, 40, 72)


def test_padding_is_at_the_end_and_cut_off(model):
    image = torch.rand(1, 3, 64, 64)
    ground = model.normalization.mean.expand(1, 3, 64, 96)  # which is 0 after normalisation
    padded = torch.cat([image, ground[..., 64:]], dim=3)
    torch.testing.assert_close(model(padded[..., :70]), model(padded)[..., :70])


def test_the_encoder_has_the_pretrained_weights(model):
    whole = pretrained("efficientnet_lite0").backbone
    tensors = model.backbone.state_dict()
    assert len(tensors) > 250
    for name, value in tensors.items():
        assert torch.equal(value, whole.state_dict()[name.removeprefix("model.")]), name


def test_the_encoder_is_projected_and_decoder_and_head_are_free(model):
    free = find_classifier(model)[0]
    names = {name for name, _ in model.named_parameters()}
    assert {name for name in names if ".encoder." in name} == names - free
    assert any("decoder" in name for name in free) and any("segmentation_head" in name for name in free)


def test_a_head_grows_and_masks_what_it_was_not_trained_on():
    head = MaskHead(4, kernel_size=3)
    maps = torch.rand(2, 4, 5, 6)
    head.activate([0, 3])
    before = head(maps)
    assert before.shape == (2, 4, 5, 6)
    expected = nn.functional.conv2d(maps, head.classifier.weight, head.classifier.bias, padding=1)
    torch.testing.assert_close(before[:, [0, 3]], expected[:, [0, 3]])
    assert (before[:, 1:3] <= -1000).all()
    head.activate([6])
    torch.testing.assert_close(head(maps)[:, :4], before)
    again = MaskHead(4, kernel_size=3)
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(maps), head(maps))


def test_normals_have_length_1():
    model = segmenter(outputs="normals").eval()
    lengths = model(torch.rand(1, 3, 33, 32)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(1, 33, 32))


def test_a_vision_transformer_takes_the_decoder_for_it():
    options = {"decoder_fusion_channels": 16, "decoder_intermediate_channels": [8, 8, 8, 8]}
    model = segmenter("vit_tiny_patch16_224", "dpt", weights="random", decoder_options=options, img_size=64).eval()
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"decoder": "unett"}, "did you mean unet"), ({"outputs": "depth"}, "masks, normals"),
     ({"encoder": "vit_tiny_patch16_224", "weights": "random"}, "do not fit")],
)  # fmt: skip
def test_what_does_not_go_together_is_said(arguments, words):
    with pytest.raises(ValueError, match=words):
        segmenter(**arguments)


def test_batch_norm_is_frozen_in_the_encoder_only():
    model = segmenter("efficientnet_lite0", "unet", weights="random")  # FPN's decoder has none
    plugin = FreezeBatchNorm()
    strategy = type("Strategy", (), {"model": model})()
    plugin.before_training_exp(strategy)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running_mean" in name}
    model(torch.rand(2, 3, 64, 64))
    plugin.after_training(strategy)
    assert any(".decoder." in name for name in before)
    for name, value in before.items():
        assert torch.equal(value, model.state_dict()[name]) == (".encoder." in name), name
