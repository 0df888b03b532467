"""The radius follows equations 6 to 9 of arXiv 2310.19182, worked out by hand: one by one, and all at once."""

import math

import pytest
import torch

from ftp_cl.projection import radius


def one_by_one(line, move, *arguments):
    line = list(line)
    getattr(radius, move)(line, *arguments)
    return line


def all_at_once(line, move, *arguments):
    numbers = torch.tensor([line, line], dtype=torch.float64)
    arguments = [
        torch.full((2,), a, dtype=torch.float64) if i == 0 and move != "begin" else a for i, a in enumerate(arguments)
    ]
    moved = getattr(radius, {"begin": "begun", "learn": "learned", "clip": "clipped"}[move])(numbers, *arguments)
    lines = (numbers if moved is None else moved).tolist()
    assert lines[0] == lines[1]
    return lines[0]


pytestmark = pytest.mark.parametrize("move", [one_by_one, all_at_once])


def test_the_first_step_sets_the_radius_and_brings_no_vote(move):
    line = move([0.5, 0.0, 0.0, 0.0, 0.0], "begin", 1e-8)
    assert line == [1e-8, 0.0, 0.0, 1.0, 0.0]
    assert move(line, "learn", 5.0, 1.0, 1e-2) == line
    assert move(line, "clip", 1e-9) == line
    assert move(line, "begin", 1e-8) == [1e-8, 0.0, 0.0, 2.0, 0.0]


def test_the_second_step_corrects_the_bias_of_two_steps(move):
    value, *_ = move([1e-8, 0.0, 0.0, 2.0, 0.0], "learn", -2.0, 1.0, 1e-2)
    mean, deviation = 0.1 * -2.0 / (1 - 0.9**2), math.sqrt(0.001 * 4.0 / (1 - 0.999**2))
    assert value == pytest.approx(1e-8 - 1e-2 * mean / (deviation + 1e-8), rel=1e-15)


@pytest.mark.parametrize(("vote", "taken"), [(4.0, 2.0), (-4.0, -4.0), (0.0, 0.0), (math.nan, 0.0), (math.inf, 0.0)])
def test_k_scales_only_votes_that_shrink_the_ball_and_what_is_no_number_is_no_vote(move, vote, taken):
    _, first, second, *_ = move([1e-8, 0.0, 0.0, 2.0, 0.0], "learn", vote, 0.5, 1e-2)
    assert first == pytest.approx(0.1 * taken)
    assert second == pytest.approx(0.001 * taken**2)


def test_the_radius_never_falls_below_its_start(move):
    line = [1e-8, 0.0, 0.0, 2.0, 0.0]
    for _ in range(5):
        line = move(line, "learn", 1.0, 1.0, 1e-2)
    assert line[0] == 1e-8


def test_the_radius_is_bounded_by_the_largest_row_if_there_is_one(move):
    line = [3.0, 0.0, 0.0, 2.0, 0.0]
    assert move(line, "clip", 2.0)[0] == 2.0
    assert move(line, "clip", 5.0)[0] == 3.0
    assert move(line, "clip", 0.0)[0] == 3.0
