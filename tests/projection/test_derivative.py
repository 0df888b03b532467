"""FTP's vote against autograd's derivative of the loss by the radius, through the projection."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ftp_cl.optim import FTP
from ftp_cl.projection import Part, Rule, TensorState, Update, available_backends, get_backends, parts_of, row_norms
from ftp_cl.projection.radius import STEPS, VALUE
from ftp_cl.projection.rows import per_row, row_dots

SHAPES = {"conv": (6, 2, 3, 3), "matrix": (5, 4), "bias": (7,), "scalar": ()}


def loss_of(weights, data):
    """Some smooth loss in which all elements interact."""
    return (torch.tanh(weights.flatten() @ data).square().sum() + 0.1 * weights.pow(3).sum()).log1p()


def projected(anchor, change, radii, norms=None):
    """W0 + min(1, gamma_r / n_r(c)) c, with a radius for each row; differentiable in the radii.

    A row that just touches its ball has two derivatives; hardtanh takes 0, as in TPGM's published code.
    """
    ratio = nn.functional.hardtanh(radii / (row_norms(change) if norms is None else norms), 0.0, 1.0)
    return anchor + per_row(ratio, change) * change


@pytest.fixture(params=SHAPES)
def projection(request):
    """Anchor, change, loss, and a radius between the shortest and the longest row (below the only one's norm)."""
    torch.manual_seed(0)
    shape = SHAPES[request.param]
    anchor, change = torch.randn(shape).double(), torch.randn(shape).double()
    data = 0.3 * torch.randn(anchor.numel(), 4).double()
    norms = row_norms(change)
    radius = norms.median().item() + 1e-3 if len(norms) > 1 else 0.5 * norms.item()
    return anchor, change, radius, lambda weights: loss_of(weights, data)


def autograd_row_by_row(anchor, change, radius, loss):
    radii = torch.full_like(row_norms(change), radius).requires_grad_()
    loss(projected(anchor, change, radii)).backward()
    return radii.grad


def gradient_at_projection(anchor, change, radius, loss):
    weights = projected(anchor, change, torch.full_like(row_norms(change), radius)).requires_grad_()
    loss(weights).backward()
    return weights.grad


def test_a_row_s_vote_is_its_derivative_where_the_constraint_is_active_and_nothing_is_where_not(projection):
    _, change, radius, _ = projection
    derivative = autograd_row_by_row(*projection)
    votes = row_dots(gradient_at_projection(*projection), change) / row_norms(change)
    active = row_norms(change) > radius
    assert active.any()
    torch.testing.assert_close(derivative[active], votes[active])
    assert (derivative[~active] == 0).all() and (votes[~active] != 0).all()


def test_an_inactive_row_s_vote_is_the_derivative_by_a_ball_that_just_touches_it(projection):
    anchor, change, radius, loss = projection
    norms = row_norms(change)
    gradient = gradient_at_projection(*projection)
    # The last row's own ball, shrunk a little: a difference quotient from below, because beyond it nothing moves.
    touching = torch.full_like(norms, radius)
    touching[norms <= radius] = norms[norms <= radius]
    votes = row_dots(gradient, change) / norms
    for row in (norms <= radius).nonzero().flatten().tolist():
        smaller = touching.clone()
        smaller[row] -= 1e-6
        quotient = (loss(projected(anchor, change, touching)) - loss(projected(anchor, change, smaller))) / 1e-6
        assert quotient.item() == pytest.approx(votes[row].item(), rel=1e-3, abs=1e-6)


def state_after_projection(anchor, change, radius):
    state = TensorState(anchor, like=anchor)
    state.change.copy_(change)
    state.norms.copy_(row_norms(change))
    state.numbers[VALUE], state.numbers[STEPS] = radius, 1
    return state


def vote_of(backend, state, gradient, method):
    weights = (
        torch.cat([state.anchor, state.anchor[: len(gradient) - len(state.anchor)]]) if gradient.dim() else gradient
    )
    update = Update("weight", weights, gradient, state, {})
    (part,) = parts_of([update], get_backends(backend))
    assert part.backend.name == backend
    part.vote(Rule(method=method))
    return float(part.votes[0])


@pytest.mark.parametrize("backend", [name for name in available_backends() if name != "triton"])
def test_the_exact_vote_is_the_derivative_and_the_published_one_adds_the_inactive_rows(projection, backend):
    anchor, change, radius, _ = projection
    state, gradient = state_after_projection(anchor, change, radius), gradient_at_projection(*projection)
    derivative = autograd_row_by_row(*projection).sum().item()
    assert vote_of(backend, state, gradient, "exact") == pytest.approx(derivative, rel=1e-12)
    votes = row_dots(gradient, change) / row_norms(change)
    assert vote_of(backend, state, gradient, "paper") == pytest.approx(votes.sum().item(), rel=1e-12)


@pytest.mark.parametrize("backend", [name for name in available_backends() if name != "triton"])
def test_the_exact_vote_of_a_tensor_that_has_grown_and_of_one_not_yet_moved(backend):
    torch.manual_seed(0)
    anchor, change = torch.zeros(3, 4).double(), torch.randn(3, 4).double()
    state = state_after_projection(anchor, change, 0.1)
    gradient = torch.randn(5, 4).double()
    expected = (row_dots(gradient[:3], change) / row_norms(change)).sum().item()
    assert vote_of(backend, state, gradient, "exact") == pytest.approx(expected)
    assert vote_of(backend, TensorState(anchor, like=anchor), gradient[:3], "exact") == 0


@pytest.mark.parametrize("method", ["exact", "paper"])
def test_votes_in_training_are_the_derivative_of_the_next_batch_s_loss(monkeypatch, method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    ftp = FTP(model, method=method, mu=1e-2).attach(optimizer)
    taken, equal = {}, []

    def remember(part, rule):
        part.votes = part.backend.vote(part.updates, rule)
        taken.update({update.name: float(vote) for update, vote in zip(part.updates, part.votes, strict=True)})

    monkeypatch.setattr(Part, "vote", remember)
    images, targets = torch.randn(20, 16, 4).double(), torch.randint(3, (20, 16))
    for step in range(20):
        before = copy.deepcopy(ftp.state_dict()["tensors"])
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[step]), targets[step]).backward()
        optimizer.step()
        if step == 0:
            continue
        radii = {n: torch.tensor(before[n]["value"], dtype=torch.float64, requires_grad=True) for n in anchor}
        weights = {
            # The state's own norms: a sum in another order may put a row on the other side of its ball's boundary.
            n: projected(anchor[n], before[n]["change"], radii[n].expand_as(before[n]["norms"]), before[n]["norms"])
            for n in anchor
        }
        nn.functional.cross_entropy(functional_call(model, weights, (images[step],)), targets[step]).backward()
        equal += [taken[name] == pytest.approx(radii[name].grad.item(), rel=1e-6, abs=1e-9) for name in anchor]
    if method == "exact":
        assert all(equal)
    else:
        assert 0 < sum(equal) < len(equal), "they differ in steps in which some row lies inside its ball"
    assert max(ftp.radii().values()) > 1e-3
