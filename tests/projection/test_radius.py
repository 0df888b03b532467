"""The radius follows equations 6 to 9 of arXiv 2310.19182, in numbers worked out by hand."""

import math

import pytest

from ftp_cl.projection import Radius


def test_the_first_step_brings_no_vote():
    radius = Radius().after(5.0, k=1.0, mu=1e-2)
    radius.clip(0.0)
    assert radius == Radius(value=1e-8, first_moment=0.0, second_moment=0.0, steps=1)


def test_the_second_step_corrects_the_bias_of_two_steps():
    radius = Radius(steps=1).after(-2.0, k=1.0, mu=1e-2)
    mean, deviation = 0.1 * -2.0 / (1 - 0.9**2), math.sqrt(0.001 * 4.0 / (1 - 0.999**2))
    assert radius.value == pytest.approx(1e-8 - 1e-2 * mean / (deviation + 1e-8), rel=1e-15)


@pytest.mark.parametrize(("vote", "taken"), [(4.0, 2.0), (-4.0, -4.0), (0.0, 0.0)])
def test_k_scales_only_votes_that_shrink_the_ball(vote, taken):
    radius = Radius(steps=1).after(vote, k=0.5, mu=1e-2)
    assert radius.first_moment == pytest.approx(0.1 * taken)
    assert radius.second_moment == pytest.approx(0.001 * taken**2)


def test_the_radius_never_falls_below_its_start():
    radius = Radius(steps=1)
    for _ in range(5):
        radius = radius.after(1.0, k=1.0, mu=1e-2)
    assert radius.value == 1e-8


def test_the_radius_is_bounded_by_the_largest_row():
    radius = Radius(value=3.0, steps=2)
    radius.clip(2.0)
    assert radius.value == 2.0
    radius.clip(5.0)
    assert radius.value == 2.0
