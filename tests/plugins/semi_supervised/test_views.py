"""Weak and strong views."""

import pickle

import pytest
import torch

from ftp_cl.plugins.semi_supervised import StrongView, WeakView


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("view", [WeakView(), StrongView(), WeakView(flip=False, crop=0), StrongView(cutout=0)])
@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 8, 8), (3, 20, 33)])
def test_views_keep_shape_type_and_range_and_leave_the_image(view, shape):
    image = torch.rand(shape)
    before = image.clone()
    for _ in range(20):
        seen = view(image)
        assert seen.shape == shape and seen.dtype == torch.float32 and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(image, before)


def test_a_weak_view_is_the_image_mirrored_and_shifted():
    image = torch.rand(3, 8, 8)
    views = [WeakView(crop=0)(image) for _ in range(40)]
    assert {torch.equal(v, image) for v in views} == {True, False}
    assert all(torch.equal(v, image) or torch.equal(v, image.flip(-1)) for v in views)
    shifted = [WeakView(flip=False)(image) for _ in range(200)]
    assert len({v.numpy().tobytes() for v in shifted}) == 9, "one pixel to each side, in both directions"
    assert torch.equal(WeakView(flip=False, crop=0)(image), image)


def test_strong_views_differ_more_than_weak_ones():
    image = torch.rand(3, 32, 32)

    def change(view):
        return sum((view(image) - image).abs().mean() for _ in range(50)) / 50

    plain = WeakView(flip=False, crop=0)
    assert change(StrongView(plain, num_ops=0)) > 0.001, "Cutout alone"
    assert change(StrongView(plain)) > 3 * change(StrongView(plain, num_ops=0))


def test_views_survive_pickling():
    image = torch.rand(3, 8, 8)
    again = pickle.loads(pickle.dumps(StrongView(magnitude=4)))
    torch.manual_seed(1)
    first = StrongView(magnitude=4)(image)
    torch.manual_seed(1)
    assert torch.equal(again(image), first)


def test_images_that_were_normalised_are_refused():
    with pytest.raises(ValueError, match=r"need images in \[0, 1\], got -1 to 2"):
        StrongView()(torch.tensor([-1.0, 2.0]).expand(3, 2, 2))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: WeakView(crop=0.6), r"crop=0\.6"),
        (lambda: StrongView(magnitude=31), "magnitude=31"),
        (lambda: StrongView(cutout=1), "cutout=1"),
    ],
)
def test_values_out_of_range_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
