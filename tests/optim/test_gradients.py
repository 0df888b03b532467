"""Which gradients the radius votes with: scaled, overwritten, maximised, from closures, accumulated, not finite."""

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP, AdamP
from ftp_cl.projection import LiteralState, available_backends, literal_step


def weights_of(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def follow_with_literal(model, optimizer, batches, k=1.0):
    """Train `model` with `optimizer` alone and project with the literal version: what FTP must equal."""
    states, anchors = {}, weights_of(model)
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        for name, parameter in model.named_parameters():
            weights, states[name] = literal_step(
                states.get(name, LiteralState()), parameter.detach(), anchors[name], gradients[name], k=k
            )
            with torch.no_grad():
                parameter.copy_(weights)
    return weights_of(model)


def assert_near(left, right):
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture
def batches(batch):
    return [batch(number) for number in range(8)]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "foreach": True},
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "foreach": False},
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "fused": True},
        {"lr": 0.05, "weight_decay": 0.1, "foreach": True},
    ],
    ids=str,
)
def test_optimizers_that_overwrite_gradients(make_model, batches, options):
    reference, model = make_model(), make_model()
    expected = follow_with_literal(reference, torch.optim.SGD(reference.parameters(), **options), batches)
    optimizer = torch.optim.SGD(model.parameters(), **options)
    FTP(model).attach(optimizer)
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert_near(weights_of(model), expected)


@pytest.mark.parametrize("flags", [{}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("maximize", [torch.optim.SGD, torch.optim.AdamW], ids=lambda kind: kind.__name__)
def test_maximize_equals_minimizing_the_negative(make_model, batches, maximize, flags):
    results = []
    for sign in (1, -1):
        model = make_model()
        optimizer = maximize(model.parameters(), lr=0.01, maximize=sign < 0, **flags)
        FTP(model).attach(optimizer)
        for images, labels in batches:
            optimizer.zero_grad()
            (sign * nn.functional.cross_entropy(model(images), labels)).backward()
            optimizer.step()
        results.append(weights_of(model))
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


@pytest.mark.parametrize("as_keyword", [False, True])
def test_a_closure_gives_the_same_as_a_backward_before_the_step(make_model, batches, as_keyword):
    results = []
    for use_closure in (False, True):
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        FTP(model).attach(optimizer)
        for images, labels in batches:

            def closure(model=model, optimizer=optimizer, images=images, labels=labels):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                return loss

            if not use_closure:
                closure()
                optimizer.step()
            else:
                loss = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
                assert loss.requires_grad
        results.append(weights_of(model))
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name]), name


def test_an_optimizer_that_calls_its_closure_often_is_projected_once_a_step(make_model, batches, train):
    model = make_model()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(4))
    assert {state["steps"] for state in ftp.state_dict()["tensors"].values()} == {4}
    for name, distance in ftp.distances().items():
        assert distance.max() <= ftp.radii()[name] + 2e-6


def test_accumulated_gradients_vote_as_one_batch(make_model, batches):
    results = []
    for parts in (1, 4):
        model = make_model().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        FTP(model).attach(optimizer)
        for images, labels in batches:
            optimizer.zero_grad()
            for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
                (nn.functional.cross_entropy(model(x), y) / parts).backward()
            optimizer.step()
        results.append(weights_of(model))
    assert_near(*results)


def test_clipped_gradients_are_those_that_vote(make_model, batches):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ftp = FTP(model).attach(optimizer)
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    assert all(abs(s["first_moment"]) <= 1e-3 for s in ftp.state_dict()["tensors"].values())


# ---- mixed precision ------------------------------------------------------------------------------------------------


def scaled_training(model, optimizer, batches, unscale, bad=()):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number, (images, labels) in enumerate(batches):
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(images), labels)).backward()
        if number in bad:
            model.conv.weight.grad[0, 0, 0, 0] = float("inf")
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW], ids=lambda kind: kind.__name__)
def test_a_gradient_scaler_changes_nothing(make_model, batches, kind, fused, unscale):
    plain, scaled = make_model(), make_model()
    optimizer = kind(plain.parameters(), lr=0.02, fused=fused)
    ftp = FTP(plain).attach(optimizer)
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(images), labels).backward()
        optimizer.step()
    scaled_optimizer = kind(scaled.parameters(), lr=0.02, fused=fused)
    scaled_ftp = FTP(scaled).attach(scaled_optimizer)
    scaled_training(scaled, scaled_optimizer, batches, unscale)
    # 1024 is a power of two: scaling loses no bit.
    for (name, left), right in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
    assert scaled_ftp.radii() == pytest.approx(ftp.radii(), rel=1e-4)


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_projects_nothing(make_model, batches, fused, unscale):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=fused)
    ftp = FTP(model).attach(optimizer)
    scaled_training(model, optimizer, batches, unscale, bad=(3, 5))
    assert {state["steps"] for state in ftp.state_dict()["tensors"].values()} == {6}
    assert ftp.skipped() == {}


def test_autocast_training_is_projected(make_model, batches):
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ftp = FTP(model).attach(optimizer)
    for images, labels in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert set(ftp.radii()) == {name for name, _ in model.named_parameters()}


# ---- not finite -----------------------------------------------------------------------------------------------------


def one_step(optimizer, weight, gradient):
    weight.grad = gradient.clone()
    optimizer.step()


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at_step", [0, 2])
def test_a_bad_row_is_left_as_it_is_the_tensor_s_vote_is_0_and_the_step_is_counted(bad, at_step, backend, caplog):
    start = torch.ones(3, 2)
    weight, state, free = nn.Parameter(start.clone()), LiteralState(), start.clone()
    optimizer = torch.optim.SGD([weight], lr=0.1)
    ftp = FTP([("weight", weight)], backend=backend).attach(optimizer)
    for step in range(4):
        gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]]) * (-1) ** step
        if step == at_step:
            gradient[1, 0] = bad
        one_step(optimizer, weight, gradient)
        free, state = literal_step(state, free - 0.1 * gradient, start, gradient)
        torch.testing.assert_close(weight.detach(), free, equal_nan=True)
        assert ftp.radii()["weight"] == pytest.approx(state.radius)
        if step == at_step:
            assert weight.isfinite().tolist() == [[True, True], [False, True], [True, True]]
            assert weight[1, 1] == start[1, 1] - 0.1 * gradient[1, 1], "the optimizer's own"
            with torch.no_grad():
                weight[1, 0] = free[1, 0] = 1.0
    saved = ftp.state_dict()["tensors"]["weight"]
    assert (saved["steps"], saved["skipped"], state.skipped) == (4, 1, 1)
    assert all(torch.isfinite(value).all() for value in saved.values() if torch.is_tensor(value))
    assert caplog.text.count("is not finite") == 1


def test_many_tensors_that_are_not_finite_are_told_in_one_line(caplog):
    weights = {name: nn.Parameter(torch.ones(2, 2)) for name in "abc"}
    optimizer = torch.optim.SGD(weights.values(), lr=0.1)
    ftp = FTP(weights).attach(optimizer)
    for bad in ("a", "abc", "abc"):
        for name, weight in weights.items():
            weight.grad = torch.full_like(weight, torch.nan if name in bad else 0.1)
        optimizer.step()
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == ["a", "b and 1 more"]
    assert ftp.skipped() == {"a": 3, "b": 2, "c": 2}


@pytest.mark.parametrize("backend", available_backends())
def test_a_bad_weight_is_left_and_other_rows_are_projected(backend):
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    ftp = FTP([("weight", weight)], backend=backend).attach(optimizer)
    for _ in range(3):
        one_step(optimizer, weight, torch.ones(3, 2))
    with torch.no_grad():
        weight[1, 1] = float("nan")
    free = weight.detach() - 0.1
    one_step(optimizer, weight, torch.ones(3, 2))
    assert torch.equal(weight[1, :1], free[1, :1]) and weight[1, 1].isnan()
    assert ftp.skipped() == {"weight": 1}
    assert (ftp.distances()["weight"][[0, 2]] <= ftp.radii()["weight"] + 1e-6).all()
    state = ftp.state_dict()["tensors"]["weight"]
    assert torch.equal(state["change"][1], torch.zeros(2))
    assert all(torch.isfinite(value).all() for value in state.values() if torch.is_tensor(value))


@pytest.mark.parametrize("backend", available_backends())
def test_a_row_whose_norm_overflows_counts_as_not_finite(backend):
    weight = nn.Parameter(torch.zeros(2, 4))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    ftp = FTP([("weight", weight)], backend=backend).attach(optimizer)
    one_step(optimizer, weight, torch.tensor([[2e38] * 4, [1.0] * 4]))
    assert torch.equal(weight[0], torch.full((4,), -2e38)) and weight[1].abs().sum() < 1e-7
    assert ftp.skipped() == {"weight": 1}


def test_a_drop_in_optimizer_skips_bad_gradients_too():
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = AdamP([{"params": [weight], "name": ["weight"]}])
    one_step(optimizer, weight, torch.full((3, 2), float("nan")))
    assert optimizer.ftp.skipped() == {"weight": 1}
