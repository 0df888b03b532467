"""DiGraP: against a literal version of the paper's Algorithm 1, and by its properties."""

import math

import pytest
import torch
from torch import nn

from ftp_cl.optim import AnchoredSteps, DirectionalProjection


def algorithm_1(start, gradients, alpha, mu):
    """Algorithm 1 of arXiv 2502.15895 on a list of plain floats: weights and omega after each step.

    `gradients(weights, t)` gives the loss's. The derivative by omega is normalised by the lengths of its two vectors.
    """

    def dot(some, others):
        return sum(a * b for a, b in zip(some, others, strict=True))

    theta, m, v = list(start), [0.0] * len(start), [0.0] * len(start)
    omega = first = second = 0.0
    projected_before, seen = None, []
    for t in range(1, 61):
        g1 = gradients(theta, t)
        g2 = [a - b for a, b in zip(theta, start, strict=True)]
        length = dot(g2, g2)
        projected = [dot(g1, g2) / length * a if length else 0.0 for a in g2]
        if t > 1:
            lengths = math.sqrt(dot(g1, g1) * dot(projected_before, projected_before))
            derivative = dot(g1, projected_before) / lengths if lengths else 0.0
            first, second = 0.9 * first + 0.1 * derivative, 0.999 * second + 0.001 * derivative**2
            step = mu * (first / (1 - 0.9**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
            omega = max(0.0, min(1.0, omega - step))
        conflict = dot(g1, g2) < 0
        g = [a - omega * b if conflict else a for a, b in zip(g1, projected, strict=True)]
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        theta = [
            w - alpha * (a / (1 - 0.9**t)) / (math.sqrt(b / (1 - 0.999**t)) + 1e-8)
            for w, a, b in zip(theta, m, v, strict=True)
        ]
        projected_before = projected
        seen.append((list(theta), omega))
    return seen


START, MINIMUM, CURVATURE = [0.5, -1.0, 2.0, 0.0], [0.9, -0.7, 1.9, 0.05], [1.0, 4.0, 0.5, 9.0]


def gradients(weights, step):
    """Of a quadratic loss in START's four weights, noisy as those of batches are."""
    parts = enumerate(zip(weights, MINIMUM, CURVATURE, strict=True))
    return [curvature * (w - minimum) + 2 * math.sin(3 * step + i) for i, (w, minimum, curvature) in parts]


@pytest.mark.parametrize("mu", [1e-2, 0.3])
def test_attached_to_adam_it_is_algorithm_1(mu):
    weights = nn.Parameter(torch.tensor(START))
    rule = DirectionalProjection(mu)
    optimizer = torch.optim.Adam([weights], lr=0.02)
    AnchoredSteps(rule, {weights: weights.detach()}).attach(optimizer)
    expected = algorithm_1(START, gradients, 0.02, mu)
    for step, (theta, omega) in enumerate(expected, 1):
        weights.grad = torch.tensor(gradients(weights.tolist(), step))
        optimizer.step()
        assert weights.tolist() == pytest.approx(theta, rel=1e-3, abs=1e-5), f"step {step}"
        assert rule.strengths[weights].numbers[0].item() == pytest.approx(omega, rel=1e-3, abs=1e-5), f"step {step}"
    assert max(omega for _, omega in expected) > mu, "where batches disagree, omega grows"
    assert rule.strengths[weights].numbers[3] == 60


@torch.no_grad()
def stepped(change, gradient, omega):
    """What a rule of that strength makes of a gradient where the weights have changed so."""
    weights, rule = nn.Parameter(torch.tensor(change)), DirectionalProjection(mu=0.0)
    anchor, given = torch.zeros(len(change)), torch.tensor(gradient)
    rule.before(weights, anchor, given.clone())
    rule.strengths[weights].numbers[0] = omega
    rule.before(weights, anchor, given)
    return given


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0])
def test_a_gradient_that_leads_away_loses_that_share_of_its_part_along_the_change(omega):
    change, gradient = [3.0, 4.0], [-2.0, 1.0]  # <g, c> = -2
    projected = stepped(change, gradient, omega)
    along = torch.tensor(change) / 5
    assert (projected @ along).item() == pytest.approx(-0.4 * (1 - omega))
    across = torch.tensor([-0.8, 0.6])
    assert (projected @ across).item() == pytest.approx(torch.tensor(gradient) @ across), "what is orthogonal stays"


def test_a_gradient_that_leads_back_or_weights_at_their_anchor_are_left_alone():
    assert stepped([3.0, 4.0], [2.0, 1.0], 1.0).tolist() == [2.0, 1.0]
    assert stepped([0.0, 0.0], [2.0, 1.0], 1.0).tolist() == [2.0, 1.0]


@torch.no_grad()
def test_a_step_whose_gradient_is_not_finite_is_as_if_it_had_not_been():
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))
    rules = DirectionalProjection(mu=0.1), DirectionalProjection(mu=0.1)
    for rule, values in zip(rules, ((-1.0, math.nan, 1.0, math.inf, -1.0, 1.0), (-1.0, 1.0, -1.0, 1.0)), strict=True):
        for value in values:
            rule.before(weights, torch.zeros(2), torch.full((2,), value))
    one, other = (rule.strengths[weights] for rule in rules)
    assert torch.equal(one.numbers, other.numbers) and torch.equal(one.projected, other.projected)
    assert one.numbers[0] > 0.1 and one.numbers[3] == 4


@torch.no_grad()
def test_a_long_way_back_to_the_anchor_overflows_nothing():
    weights, gradient = nn.Parameter(torch.tensor([1e3, 0.0])), torch.tensor([1e36, 0.0])
    DirectionalProjection().before(weights, torch.zeros(2), gradient)
    assert gradient.tolist() == pytest.approx([1e36, 0.0])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_projected_in_float32(dtype):
    weights, anchor = nn.Parameter(torch.tensor([300.0, 1.0], dtype=dtype)), torch.tensor([-1.0, 1.0], dtype=dtype)
    rule, gradient = DirectionalProjection(mu=0.0), torch.tensor([-2.0, 1.0], dtype=dtype)
    rule.before(weights, anchor, gradient.clone())
    assert rule.strengths[weights].projected.tolist() == [-2.0, 0.0]
    rule.strengths[weights].numbers[0] = 1.0
    rule.before(weights, anchor, gradient)
    assert gradient.dtype == dtype and gradient.tolist() == [0.0, 1.0]


@torch.no_grad()
def test_weights_of_another_size_begin_anew():
    weights, rule = nn.Parameter(torch.ones(2)), DirectionalProjection()
    rule.before(weights, torch.zeros(2), torch.ones(2))
    weights.data = torch.ones(3)
    rule.before(weights, torch.zeros(3), torch.ones(3))
    assert rule.strengths[weights].numbers[3] == 1


@pytest.mark.parametrize("mu", [-1, math.nan, math.inf])
def test_a_step_size_below_zero_or_not_finite_is_refused(mu):
    with pytest.raises(ValueError, match=f"mu={mu}"):
        DirectionalProjection(mu)
