"""Depthwise convolutions on small maps: the same numbers as nn.Conv2d's."""

import copy

import pytest
import torch
from torch import nn

from ftp_cl.models import pretrained
from ftp_cl.models.small_maps import SmallMapConv2d, quicken_small_maps


@pytest.mark.parametrize("kernel", [1, 3, 5, (3, 5), (7, 1)])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (1, 4), (5, 2), (8, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_those_of_torch(kernel, size, bias):
    torch.manual_seed(0)
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    plain = nn.Sequential(nn.Conv2d(6, 6, kernel, padding=padding, groups=6, bias=bias)).double()
    quick = copy.deepcopy(plain)
    quicken_small_maps(quick)
    assert isinstance(quick[0], SmallMapConv2d)
    results = []
    for model in (plain, quick):
        images = torch.linspace(-1, 1, 2 * 6 * size[0] * size[1]).double().view(2, 6, *size).requires_grad_()
        output = model(images)
        output.pow(2).sum().backward()
        results.append([output, images.grad, *(weight.grad for weight in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_other_convolutions_are_left_alone():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
    )
    quicken_small_maps(model)
    assert all(type(module) is nn.Conv2d for module in model)


def test_the_packaged_backbone_uses_them_and_keeps_its_names():
    model = pretrained()
    quick = [name for name, module in model.backbone.named_modules() if isinstance(module, SmallMapConv2d)]
    assert "blocks.5.1.conv_dw" in quick
    assert "blocks.5.1.conv_dw.weight" in model.backbone.state_dict()
