"""Adam's update and the projection in one pass equal the two one after the other, whatever the settings."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP, AdamP
from ftp_cl.projection import available_backends
from ftp_cl.projection.radius import VALUE

pytestmark = pytest.mark.skipif("numba" not in available_backends(), reason="numba is not installed")

FUSED = [
    {},
    {"weight_decay": 0.1},
    {"maximize": True},
    {"betas": (0.8, 0.95), "eps": 1e-4},
]
TWO_PASSES = [
    {"amsgrad": True},
    {"fused": False, "foreach": False},
    {"fused": False, "foreach": True},
    {"capturable": True},
]


def start():
    torch.manual_seed(0)
    return {
        "free": nn.Parameter(torch.randn(3, 4)),
        "linear": nn.Parameter(torch.randn(30, 2000)),
        "conv": nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        "pointwise": nn.Parameter(torch.randn(8, 20, 1, 1)),
        "transposed": nn.Parameter(torch.randn(5, 7).t()),
        "double": nn.Parameter(torch.randn(6, 5, dtype=torch.float64)),
        "half": nn.Parameter(torch.randn(6, 5).bfloat16()),
        "scalar": nn.Parameter(torch.tensor(1.0)),
    }


def set_gradients(weights, step):
    for number, (name, weight) in enumerate(weights.items()):
        generator = torch.Generator().manual_seed(100 * step + number)
        gradient = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.grad = torch.empty_like(weight).copy_(gradient)
        if name == "pointwise":  # as convolutions in channels_last leave it: strides of size 1 mean nothing
            weight.grad = weight.grad.to(memory_format=torch.channels_last)
        if step == 3 and name == "conv":
            weight.grad = None


def attached(weights, backend="numba", kind=torch.optim.AdamW, **settings):
    """An optimizer with two groups, of which FTP projects all but "free"; returns both."""
    names = list(weights)
    groups = [{"params": [weights[n] for n in part]} for part in (names[:2], names[2:])]
    groups[1] |= {"lr": 0.02, "ftp_k": 0.0}
    optimizer = kind(groups, lr=0.01, **{"fused": True, **settings})
    exclude = [name for name in weights if name == "free"]
    return optimizer, FTP(weights.items(), backend=backend, exclude=exclude, k=0.5).attach(optimizer)


def train(optimizer, weights, steps=range(8)):
    for step in steps:
        set_gradients(weights, step)
        optimizer.step()


@pytest.fixture
def passes(monkeypatch):
    """How many tensors each call has taken in one pass."""
    from ftp_cl.projection.backends.numba_backend import NumbaBackend

    taken, adam = [], NumbaBackend.adam

    def count(backend, updates, *args):
        taken.append(len(updates))
        return adam(backend, updates, *args)

    monkeypatch.setattr(NumbaBackend, "adam", count)
    return taken


def assert_equal_training(settings, kind=torch.optim.AdamW):
    expected, actual = start(), start()
    two_passes, reference = attached(expected, "torch", kind, **settings)
    one_pass, ftp = attached(actual, "numba", kind, **settings)
    train(two_passes, expected), train(one_pass, actual)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=2e-5)
        assert torch.equal(*(o.state[w[name]]["step"] for o, w in ((two_passes, expected), (one_pass, actual))))
    assert ftp.radii() == pytest.approx(reference.radii(), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("settings", FUSED, ids=str)
def test_one_pass_equals_two(settings, passes):
    assert_equal_training(settings)
    # float32, float64, bfloat16 in each step but the first, in which Adam has no state yet; "conv" has no gradient
    # once, and a row of "transposed" does not lie densely in memory.
    assert passes == [4, 1, 1, 4, 1, 1, 3, 1, 1] + [4, 1, 1] * 4


@pytest.mark.parametrize("settings", TWO_PASSES, ids=str)
def test_other_settings_take_two_passes(settings, passes):
    assert_equal_training(settings)
    assert not passes


def test_adam_is_fused_unless_it_decays_within_the_gradient(passes):
    assert_equal_training({}, torch.optim.Adam)
    assert passes
    passes.clear()
    assert_equal_training({"weight_decay": 0.1}, torch.optim.Adam)
    assert not passes


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
@pytest.mark.parametrize("settings", FUSED, ids=str)
def test_adam_s_own_part_is_torch_s_to_the_last_bit(settings, kind, passes):
    """Within balls without bounds; torch itself rounds otherwise in what remains after whole vectors."""
    if kind is torch.optim.Adam:
        settings = {**settings, "weight_decay": 0.0}
    shapes = {"rows": (30, 800), "short": (16, 3, 3), "double": (16, 5), "half": (32, 7)}
    numbers = {name: torch.linspace(-1, 1, math.prod(shape)).view(shape) for name, shape in shapes.items()}
    numbers |= {"double": numbers["double"].double(), "half": numbers["half"].bfloat16()}
    weights, plain = ({name: nn.Parameter(value.clone()) for name, value in numbers.items()} for _ in range(2))
    (one_pass, ftp), (alone, unused) = attached(weights, kind=kind, **settings), attached(plain, kind=kind, **settings)
    train(one_pass, weights, [0]), train(alone, plain, [0])
    unused.detach()
    for step in range(1, 8):
        for state in ftp._states.values():
            state.numbers[VALUE] = math.inf
        train(one_pass, weights, [step]), train(alone, plain, [step])
    assert len(passes) == 3 * 7
    for name, weight in weights.items():
        assert torch.equal(weight, plain[name]), name
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(one_pass.state[weight][moment], alone.state[plain[name]][moment]), (name, moment)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_tensors_that_several_threads_share(threads, monkeypatch, passes):
    monkeypatch.setattr("ftp_cl.projection.backends.numba_backend._SMALLEST_SHARE", 100)
    torch.set_num_threads(threads)
    try:
        assert_equal_training({})
    finally:
        torch.set_num_threads(1)
    assert passes


def test_a_tensor_that_has_grown_takes_two_passes(passes):
    weight = nn.Parameter(torch.ones(4, 3))
    optimizer = torch.optim.AdamW([weight], fused=True, weight_decay=0.0)
    ftp = FTP([("weight", weight)], backend="numba")
    ftp.attach(optimizer)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert passes == [1]
    weight.data = torch.ones(6, 3)
    for moment in ("exp_avg", "exp_avg_sq"):
        optimizer.state[weight][moment] = torch.zeros(6, 3)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert passes == [1] and (weight[4:] < 1).all(), "new rows are trained"


def test_gradients_are_there_again_after_the_step_and_for_other_hooks(passes):
    weights = start()
    optimizer, _ = attached(weights)
    train(optimizer, weights, range(2))
    gradients = {name: weight.grad for name, weight in weights.items()}
    assert all(gradient is not None for gradient in gradients.values())
    assert len(passes) == 3
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.extend(weight.grad for weight in weights.values()))
    optimizer.step()
    assert all(gradient is not None for gradient in seen)
    assert len(passes) == 3, "with somebody else's hook in between, there are two passes"


def test_hooks_from_before_see_weights_that_are_not_projected_yet(passes):
    """Their work on the weights is to be projected, too."""
    weight = nn.Parameter(torch.zeros(3, 4))
    optimizer = torch.optim.AdamW([weight], fused=True)
    optimizer.register_step_post_hook(lambda *_: weight.data.add_(100.0))
    FTP([("weight", weight)], backend="numba").attach(optimizer)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert not passes and weight.abs().max() < 1


class Centralized(torch.optim.AdamW):
    """Changes the gradients that it collects."""

    def _init_group(self, group, parameters, gradients, *lists):
        has_complex = super()._init_group(group, parameters, gradients, *lists)
        gradients[:] = [gradient - gradient.mean() for gradient in gradients]
        return has_complex


def test_a_subclass_that_works_on_gradients_takes_two_passes(passes):
    assert_equal_training({}, Centralized)
    assert not passes


def test_a_failure_leaves_gradients_and_counts_as_they_were(monkeypatch):
    weights = start()
    optimizer, _ = attached(weights)
    train(optimizer, weights, range(2))

    def fail(*args):
        raise MemoryError

    monkeypatch.setattr("ftp_cl.projection.backends.numba_backend.NumbaBackend.adam", fail)
    with pytest.raises(MemoryError):
        optimizer.step()
    assert all(weight.grad is not None for weight in weights.values())
    assert {state["step"].item() for state in optimizer.state.values()} == {2}
    monkeypatch.undo()
    before = weights["linear"].detach().clone()
    optimizer.step()
    assert not torch.equal(weights["linear"], before)


def test_a_closure_s_gradients_are_used(passes):
    weights, with_closure = start(), start()
    optimizer, _ = attached(weights)
    other, _ = attached(with_closure)
    train(optimizer, weights, range(4))
    for step in range(4):
        loss = other.step(lambda step=step: set_gradients(with_closure, step) or step)
        assert loss == step
    assert len(passes) == 2 * 9
    for name, weight in weights.items():
        assert torch.equal(weight, with_closure[name])


@pytest.mark.parametrize("kind", [torch.optim.AdamW, AdamP])
def test_a_compiled_step_is_the_same(kind, passes):
    results = []
    for compiled in (False, True):
        weights = start()
        del weights["transposed"], weights["double"], weights["half"]
        if kind is AdamP:
            optimizer = AdamP([{"params": list(weights.values()), "name": list(weights)}], lr=0.01, backend="numba")
        else:
            optimizer, _ = attached(weights)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for number in range(4):
            set_gradients(weights, number)
            step()
        results.append((weights, [state["step"].item() for state in optimizer.state.values()]))
    (plain, counts), (traced, traced_counts) = results
    assert counts == traced_counts
    assert len(passes) == 2 * 3
    for name in plain:
        torch.testing.assert_close(traced[name], plain[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["paper", "one_pass"])
@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_compiled_iterations_give_the_weights_of_eager_ones(backend, method, passes):
    inputs, results = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        FTP(model, method=method, backend=backend).attach(optimizer)

        def iterate(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

        run = torch.compile(iterate, backend="eager") if compiled else iterate
        for _ in range(4):
            run()
        results.append(list(model.parameters()))
    assert len(passes) == (2 * 3 if backend == "numba" else 0)
    for plain, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copied_drop_in_optimizer_goes_on_in_one_pass(copied, passes):
    weights = {"a": nn.Parameter(torch.ones(3, 4)), "b": nn.Parameter(torch.ones(4))}
    optimizer = AdamP([{"params": list(weights.values()), "name": list(weights)}], backend="numba")
    train(optimizer, weights, range(3))
    others, other = copied((weights, optimizer))
    passes.clear()
    train(optimizer, weights, range(3, 6)), train(other, others, range(3, 6))
    assert passes == [2] * 6
    for name in weights:
        assert torch.equal(weights[name], others[name])


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


def test_an_overflowing_vote_is_no_vote_but_a_step(passes):
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = AdamP([{"params": [weight], "name": ["weight"]}], backend="numba")
    for size in (1.0, 1.0, 3e38):
        weight.grad = torch.full_like(weight, size)
        optimizer.step()
    assert passes == [1, 1] and not optimizer.ftp.skipped()
    assert optimizer.state[weight]["step"] == 3


def test_a_gradient_scaler_changes_nothing_but_the_number_of_passes(passes):
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
    assert passes == [1] * 5, "without one"
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
