"""AdamP with Adam's update fused in equals AdamP in two passes, whatever the settings, and fuses where it can."""

import pytest
import torch
from torch import nn

from ftp_cl.optim import AdamP
from ftp_cl.projection import available_backends

pytestmark = pytest.mark.skipif("numba" not in available_backends(), reason="numba is not installed")

SETTINGS = [
    {},
    {"weight_decay": 0.1, "k": 0.5},
    {"amsgrad": True},
    {"maximize": True},
    {"fused": False, "foreach": False},
    {"foreach": True},
]


def drop_in(weights, backend, **settings):
    names = list(weights)
    groups = [{"params": [weights[n] for n in part], "name": part} for part in (names[:2], names[2:])]
    groups[1]["lr"] = 0.02
    return AdamP(groups, lr=0.01, backend=backend, exclude_set={"free"}, **settings)


def start():
    torch.manual_seed(0)
    return {
        "free": nn.Parameter(torch.randn(3, 4)),
        "linear": nn.Parameter(torch.randn(30, 2000)),
        "conv": nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        "transposed": nn.Parameter(torch.randn(5, 7).t()),
        "double": nn.Parameter(torch.randn(6, 5, dtype=torch.float64)),
        "half": nn.Parameter(torch.randn(6, 5).bfloat16()),
        "scalar": nn.Parameter(torch.tensor(1.0)),
    }


def train(backend, **settings):
    weights = start()
    optimizer = drop_in(weights, backend, **settings)
    for step in range(8):
        for number, (name, weight) in enumerate(weights.items()):
            generator = torch.Generator().manual_seed(100 * step + number)
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.dtype)
            if step == 3 and name == "conv":
                weight.grad = None
        optimizer.step()
    return weights, optimizer


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_one_pass_equals_two(settings):
    expected, two_passes = train("torch", **settings)
    actual, one_pass = train("numba", **settings)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=2e-5)
        steps = [o.state[w[name]]["step"] for o, w in ((two_passes, expected), (one_pass, actual))]
        assert torch.equal(*steps)
    assert one_pass.ftp.radii() == pytest.approx(two_passes.ftp.radii(), rel=1e-2, abs=1e-4)


def test_a_bad_gradient_is_skipped_by_the_projection_only():
    weights = {
        "a": nn.Parameter(torch.ones(2, 3)),
        "b": nn.Parameter(torch.ones(2, 3)),
        "c": nn.Parameter(torch.ones(1)),
    }
    optimizer = AdamP([{"params": list(weights.values()), "name": list(weights)}], backend="numba")
    for bad in (False, False, True):
        for name, weight in weights.items():
            weight.grad = torch.full_like(weight, float("nan") if bad and name == "a" else 1.0)
        optimizer.step()
    assert optimizer.ftp.skipped() == {"a": 1}
    assert weights["a"].isnan().all() and weights["b"].isfinite().all()
    assert all(state["step"] == 3 for state in optimizer.state.values())


def test_a_gradient_scaler_changes_nothing():
    results = []
    for scale in (None, 1024.0):
        weight = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
        optimizer = AdamP([{"params": [weight], "name": ["weight"]}], lr=0.01, backend="numba")
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for step in range(6):
            optimizer.zero_grad()
            scaler.scale((weight.sin() * (step - 2)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        results.append(weight.detach())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
