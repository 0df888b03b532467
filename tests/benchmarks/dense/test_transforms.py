"""Images and targets are changed as one."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchvision.transforms import v2

from ftp_cl.benchmarks.dense.transforms import JointTransform, Normals, WeakJointView, resized

MIRROR = JointTransform(v2.RandomHorizontalFlip(p=1))


def normals(height=6, width=8):
    generator = torch.Generator().manual_seed(0)
    found = torch.nn.functional.normalize(torch.randn(3, height, width, generator=generator), dim=0)
    found[:, 1:3, 2:5] = 0
    return found


def test_mirrored_normals_point_the_other_way_in_x_alone():
    before = normals()
    _, after = MIRROR(torch.rand(3, 6, 8), before)
    expected = before.numpy()[:, :, ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    np.testing.assert_array_equal(after.numpy(), expected)
    assert not torch.signbit(after[:, 1:3, 3:6]).any(), "what is unknown stays plain zero"


@pytest.mark.parametrize("target", [normals(), torch.arange(48).view(6, 8)])
def test_mirroring_twice_gives_the_input(target):
    image = torch.rand(3, 6, 8)
    again = MIRROR(*MIRROR(image, target))
    assert torch.equal(again[0], image) and torch.equal(again[1], target)


def test_resized_normals_have_length_1_and_what_is_unknown_stays_so():
    _, found = resized(torch.rand(3, 6, 8), normals(), (12, 16))
    lengths = found.norm(dim=0)
    unknown = torch.zeros(12, 16, dtype=torch.bool)
    unknown[2:6, 4:10] = True
    assert_close(lengths[~unknown], torch.ones(12 * 16 - 24))
    assert (found[:, unknown] == 0).all()


def test_resized_masks_have_no_new_classes_and_the_nearest_pixel():
    mask = torch.tensor([[3, 255], [7, 0]])
    image, found = resized(torch.rand(3, 2, 2), mask, (4, 4))
    assert image.shape == (3, 4, 4)
    assert torch.equal(found, mask.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_a_view_moves_image_and_mask_alike():
    mask = torch.arange(16 * 24).view(16, 24)
    image = mask.expand(3, -1, -1) / 500.0
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        view, target = WeakJointView()(image, mask)
        assert view.shape == image.shape and target.shape == mask.shape and type(target) is torch.Tensor
        assert_close(view[0], target / 500.0)
        seen.add((bool(target[8, 0] > target[8, -1]), int(target[8, 12])))
    assert {mirrored for mirrored, _ in seen} == {True, False} and len(seen) > 10


def test_borders_that_a_shift_brings_in_have_no_normals():
    torch.manual_seed(0)
    whole = torch.nn.functional.normalize(torch.ones(3, 16, 16), dim=0)
    _, target = WeakJointView()(torch.rand(3, 16, 16), whole)
    lengths = target.norm(dim=0)
    assert ((lengths == 0) | ((lengths - 1).abs() < 1e-6)).all() and (lengths == 0).any()
    assert isinstance(Normals(target), Normals)


def test_padding_may_be_one_number():
    normals = Normals(torch.ones(3, 2, 2))
    assert v2.functional.pad(normals, 1).sum(dim=(1, 2)).tolist() == [4, 4, 4]
    assert v2.functional.pad(normals, 1).shape == (3, 4, 4)


def test_normals_upside_down_point_the_other_way_in_y_alone():
    _, after = JointTransform(v2.RandomVerticalFlip(p=1))(torch.rand(3, 6, 8), normals())
    expected = normals().numpy()[:, ::-1] * np.array([1, -1, 1], np.float32)[:, None, None]
    np.testing.assert_array_equal(after.numpy(), expected)


def test_normals_are_cut_with_their_image():
    before = normals()
    _, after = JointTransform(v2.CenterCrop((4, 4)))(torch.rand(3, 6, 8), before)
    assert torch.equal(after, before[:, 1:5, 2:6])
    crop = v2.RandomResizedCrop((8, 8), scale=(0.5, 0.5), ratio=(1, 1))
    _, after = JointTransform(crop)(torch.rand(3, 16, 16), torch.nn.functional.normalize(torch.rand(3, 16, 16), dim=0))
    assert_close(after.norm(dim=0), torch.ones(8, 8))


@pytest.mark.parametrize("bends", [v2.RandomRotation(30), v2.RandomAffine(10), v2.RandomPerspective(p=1)])
def test_what_would_leave_normals_behind_its_image_is_refused(bends):
    with pytest.raises(TypeError, match="cannot be turned or bent"):
        JointTransform(bends)(torch.rand(3, 6, 8), normals())
