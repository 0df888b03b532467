"""The rule in one pass: the same trajectory behind any optimizer and in Adam's loop; refused where it is not sound."""

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP, AdamP
from ftp_cl.projection import LiteralState, available_backends, literal_step

SHAPES = {"matrix": (6, 300), "conv": (5, 2, 3, 3), "bias": (9,), "scale": ()}


def start(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(s, generator=generator).bfloat16().to(dtype)) for name, s in SHAPES.items()}


def gradients(step):
    generator = torch.Generator().manual_seed(1 + step // 3)  # some of one mind, so that radii grow
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def train(optimizer, weights, steps=range(15)):
    for step in steps:
        for name, gradient in gradients(step).items():
            weights[name].grad = gradient.to(weights[name])
        optimizer.step()


def attached(weights, kind=torch.optim.AdamW, fused=True, **options):
    optimizer = kind(weights.values(), lr=1e-2, fused=fused)
    return optimizer, FTP(weights.items(), **{"method": "one_pass", "k": 0.5, **options}).attach(optimizer)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("fused", [True, False])
def test_it_is_the_rule_behind_adamw_in_one_loop_or_as_hooks(backend, fused):
    """The literal version, written out: the vote of this step's direction moves the radius of the next one."""
    weights, twins = start(torch.float64), start(torch.float64)
    optimizer, ftp = attached(weights, fused=fused, backend=backend)
    alone = torch.optim.AdamW(twins.values(), lr=1e-2, fused=fused)
    anchors = {name: weight.detach().clone() for name, weight in twins.items()}
    states = dict.fromkeys(weights, LiteralState())
    for step in range(15):
        train(optimizer, weights, [step])
        before = {name: weight.detach().clone() for name, weight in twins.items()}
        train(alone, twins, [step])
        for name, twin in twins.items():
            given = {"k": 0.5, "before": before[name]}
            projected, states[name] = literal_step(states[name], twin.detach(), anchors[name], twin.grad, **given)
            twin.data.copy_(projected)
            torch.testing.assert_close(weights[name], twin, rtol=1e-9, atol=1e-12)
        assert ftp.radii() == pytest.approx({name: state.radius for name, state in states.items()}, rel=1e-6)
    assert max(ftp.radii().values()) > 1.5e-2


@pytest.mark.parametrize("backend", available_backends())
def test_the_first_radius_is_the_mu_in_force_at_the_first_step(backend):
    weights = start()
    optimizer, ftp = attached(weights, backend=backend, mu=1.0)
    ftp.mu = 0.02
    train(optimizer, weights, [0])
    assert ftp.radii() == pytest.approx(dict.fromkeys(SHAPES, 0.02))
    assert ftp.distances()["matrix"] == pytest.approx(torch.full((6,), 0.02), rel=1e-3)


@pytest.mark.parametrize("backend", available_backends())
def test_adamp_equals_ftp_behind_adamw_and_keeps_one_tensor_of_the_weights_size(backend):
    one, two = start(), start()
    group = {"params": list(one.values()), "name": list(one)}
    drop_in = AdamP([group], lr=1e-2, k=0.5, weight_decay=1e-2, method="one_pass", backend=backend)
    optimizer, ftp = attached(two, backend="torch", fused=False)
    train(drop_in, one), train(optimizer, two)
    for name in SHAPES:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    tensors = drop_in.state_dict()["ftp"]["tensors"]["matrix"]
    assert {name: t.numel() for name, t in tensors.items() if torch.is_tensor(t)} == {"anchor": 1800, "norms": 6}
    assert drop_in.ftp.radii() == pytest.approx(ftp.radii(), rel=1e-3)


def test_states_go_from_one_rule_to_the_other_and_on():
    for methods in (("paper", "one_pass"), ("one_pass", "paper"), ("one_pass", "one_pass")):
        weights, whole = start(), start()
        (optimizer, ftp), (twin, expected) = attached(weights, method=methods[0]), attached(whole, method=methods[0])
        train(optimizer, weights, range(5)), train(twin, whole, range(10))
        saved = optimizer.state_dict()
        optimizer, ftp = attached(weights, method=methods[1])
        optimizer.load_state_dict(saved)
        train(optimizer, weights, range(5, 10))
        assert {state["steps"] for state in ftp.state_dict()["tensors"].values()} == {10}
        if methods[0] == methods[1]:
            assert ftp.radii() == expected.radii()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused_because_they_lose_small_changes(dtype):
    weight = nn.Parameter(torch.ones(2, 2, dtype=dtype))
    sentence = (
        r"weight is of torch\..*float16, in which changes are lost .* keep them in float32, or use method='paper'\."
    )
    with pytest.raises(ValueError, match=sentence):
        FTP([("weight", weight)], method="one_pass")
    weight.requires_grad_(False)
    FTP([("weight", weight)], method="one_pass")


def test_a_dtype_of_directions_that_are_not_kept_is_refused():
    with pytest.raises(ValueError, match="has no use in one pass, which keeps no direction"):
        FTP([], method="one_pass", direction_dtype="bfloat16")


# ---- anchors in another dtype ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backend",  # the compiled loops take anchors of another dtype as loops of their own, which compile for seconds
    [pytest.param(name, marks=pytest.mark.slow if name == "numba" else ()) for name in available_backends()],
)
@pytest.mark.parametrize("method", ["paper", "one_pass"])
def test_an_anchor_in_bfloat16_is_exact_where_the_weights_are_bfloat16_numbers(backend, method):
    exact, halved = start(), start()
    optimizer, ftp = attached(exact, backend=backend, method=method)
    other, half = attached(halved, backend=backend, method=method, anchor_dtype="bfloat16")
    train(optimizer, exact), train(other, halved)
    for name in SHAPES:
        torch.testing.assert_close(exact[name], halved[name], rtol=1e-6, atol=1e-7)
    assert half.state_dict()["tensors"]["matrix"]["anchor"].dtype == torch.bfloat16
    assert half.radii() == pytest.approx(ftp.radii(), rel=1e-4)


def test_an_anchor_that_would_be_rounded_is_refused_unless_it_may_be():
    weight = nn.Parameter(torch.full((2, 2), 1 + 2**-12))
    optimizer = torch.optim.SGD([weight], lr=1e-4)
    ftp = FTP([("weight", weight)], anchor_dtype="bfloat16").attach(optimizer)
    weight.grad = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"anchor_dtype=torch.bfloat16 would round .* of weight, .* round_anchor=True"):
        optimizer.step()
    ftp.detach()
    exact = FTP([("weight", weight)]).attach(optimizer)
    optimizer.step()
    saved = exact.state_dict()
    exact.detach()
    rounding = FTP([("weight", weight)], anchor_dtype="bfloat16", round_anchor=True).attach(optimizer)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2)), "near the rounded anchor"
    rounding.detach()
    loaded = FTP([("weight", weight)], anchor_dtype="bfloat16").attach(optimizer)
    with pytest.raises(ValueError, match="would round the anchor of weight"):
        loaded.load_state_dict(saved)
