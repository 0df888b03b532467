"""Every backend equals the literal version, whatever the shape, dtype, memory layout and size of the numbers."""

import ast
import copy
import importlib
import inspect
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ftp_cl.optim import FTP
from ftp_cl.projection import (
    LiteralState,
    Rule,
    Scaler,
    Storage,
    TensorState,
    Update,
    available_backends,
    get_backends,
    literal_step,
    parts_of,
)
from ftp_cl.projection.radius import STEPS

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(name not in available_backends(), reason=f"{name} is not installed"))
    for name in ("torch", "numba")
]
# Triton's interpreter runs kernels on CPU, slowly, and cuts numbers to bfloat16 where a GPU rounds them.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WITH_TRITON = [
    *BACKENDS,
    pytest.param("triton", marks=pytest.mark.skipif("triton" not in available_backends(), reason="needs a GPU")),
]

# dtype -> smallest and largest power of ten of the numbers, and the tolerance of a radius beside its unit, mu
KINDS = {
    torch.float64: (-30, 30, 1e-9),
    torch.float32: (-15, 15, 2e-3),
    torch.bfloat16: (-15, 15, 2e-3),
    torch.float16: (-3, 2, 2e-3),
}


def contiguous(tensor):
    return tensor


def outermost_last(tensor):
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0)


def innermost_first(tensor):
    """channels_last for 4 dimensions, and what corresponds to it for others."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1) if tensor.dim() > 2 else tensor


def with_gaps(tensor):
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


LAYOUTS = [contiguous, outermost_last, innermost_first, with_gaps]
SHAPES = st.one_of(
    st.lists(st.integers(1, 5), max_size=5).map(tuple),
    st.sampled_from([(1, 300), (60, 1), (1, 1), (700,), (20, 33), (3, 2, 40), (4, 40_000)]),
)


def fused_adamw(parameters, lr):
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1, fused=True)


@st.composite
def cases(draw):
    method = draw(st.sampled_from(["paper", "one_pass"]))
    allowed = [torch.float64, torch.float32] if method == "one_pass" else list(KINDS)
    dtype = draw(st.sampled_from([dtype for dtype in allowed if not (INTERPRETED and dtype == torch.bfloat16)]))
    low, high, _ = KINDS[dtype]
    return {
        "method": method,
        # In float16, Adam's second moments become 0, and weights infinite.
        "optimizer": draw(st.sampled_from([torch.optim.SGD] + [fused_adamw] * (dtype != torch.float16))),
        "shapes": draw(st.lists(SHAPES, min_size=1, max_size=1 if INTERPRETED else 3)),
        "dtype": dtype,
        "weights_layout": draw(st.sampled_from(LAYOUTS)),
        "gradient_layout": draw(st.sampled_from(LAYOUTS)),
        "seed": draw(st.integers(0, 10_000)),
        "size": 10.0 ** draw(st.integers(low, high)),
        "k": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "steps": draw(
            st.lists(st.sampled_from(["usual", "usual", "zero gradient", "at the anchor", "not finite"]), max_size=12)
        ),
        "zero_rows": draw(st.booleans()),
    }


def random(shape, generator, dtype, size):
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * size).to(dtype)


def device_of(backend):
    return "cuda" if backend == "triton" and not INTERPRETED else "cpu"


@pytest.mark.parametrize("backend", WITH_TRITON)
@settings(max_examples=6 if INTERPRETED else 100, deadline=None)
@given(case=cases())
def test_each_step_equals_the_literal_step(backend, case):
    """Behind SGD, and behind fused AdamW, with which some backends work in one pass; one tensor, and several."""
    dtype, size, device = case["dtype"], case["size"], device_of(backend)
    generator = torch.Generator().manual_seed(case["seed"])
    anchors = {str(i): random(shape, generator, dtype, size).to(device) for i, shape in enumerate(case["shapes"])}
    weights, twins = (
        {name: nn.Parameter(case["weights_layout"](anchor.clone())) for name, anchor in anchors.items()}
        for _ in range(2)
    )
    optimizer, alone = (case["optimizer"](tensors.values(), lr=0.5) for tensors in (weights, twins))
    ftp = FTP(weights.items(), k=case["k"], method=case["method"], anchor=anchors, backend=backend).attach(optimizer)
    states = dict.fromkeys(weights, LiteralState())
    for kind in case["steps"]:
        for name, weight in weights.items():
            gradient = random(weight.shape, generator, dtype, size).to(device)
            if case["zero_rows"] and gradient.dim():
                gradient[: len(gradient) // 2] = 0
            if kind == "zero gradient":
                gradient.zero_()
            if kind == "at the anchor":
                with torch.no_grad():
                    weight.copy_(anchors[name] + 0.5 * gradient)
                    twins[name].copy_(weight)
            if kind == "not finite":
                gradient[(0,) * gradient.dim()] = torch.nan
            of_weights = case["optimizer"] is fused_adamw and weight.is_cuda  # torch refuses others there
            weight.grad = torch.empty_like(weight).copy_(gradient) if of_weights else case["gradient_layout"](gradient)
            twins[name].grad = weight.grad
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        optimizer.step(), alone.step()
        for name, weight in weights.items():
            free, gradient = twins[name].detach(), weight.grad
            given = {"k": case["k"], "before": before[name] if case["method"] == "one_pass" else None}
            expected, states[name] = literal_step(states[name], free, anchors[name], gradient, **given)
            step = (free - before[name]).abs().double()
            assert_step(ftp.radii()[name], weight, expected, anchors[name], states[name], step, KINDS[dtype][2])
            with torch.no_grad():
                expected = expected.where(expected.isfinite(), anchors[name])
                weight.copy_(expected)
                twins[name].copy_(expected)


def assert_step(radius, weight, expected, anchor, state, step, radius_tolerance):
    """Weights may differ by rounding, and by what a radius may differ: votes cancel, and are summed in any order."""
    assert radius == pytest.approx(state.radius, rel=1e-4, abs=1e-2 * radius_tolerance)
    slack = 1e-2 * radius_tolerance + 1e-4 * state.radius
    change, kind = state.change.double(), torch.finfo(weight.dtype)
    dims = tuple(range(1, change.dim())) or None
    norms = change.abs().sum(dim=dims, keepdim=True) if dims else change.abs().sum()
    # Below the smallest normal number, rounding does not get finer any more.
    sizes = anchor.double().abs() + change.abs() + expected.double().abs()
    rounding = 8 * kind.eps * sizes + 2 * kind.eps * kind.smallest_normal
    rounding += 1e-12 * step  # Adam divides by 1 - 0.999^t: what a power's last bit says counts a thousandfold at first
    bound = rounding + slack * change.abs() / (norms + 1e-8)
    finite = expected.isfinite()
    assert torch.equal(weight.isfinite(), finite)
    assert ((weight.double() - expected.double()).abs() <= bound)[finite].all()


@pytest.mark.parametrize("backend", WITH_TRITON)
def test_groups_have_their_own_k_to_the_last_digit(backend):
    ks, device = {"one": 0.3, "two": 0.7}, device_of(backend)
    weights = {name: nn.Parameter(torch.ones(2, 3, dtype=torch.float64, device=device)) for name in ks}
    optimizer = torch.optim.SGD([{"params": [weights[name]], "ftp_k": k} for name, k in ks.items()], lr=0.1)
    ftp, states = FTP(weights.items(), backend=backend).attach(optimizer), dict.fromkeys(ks, LiteralState())
    anchors = {name: weight.detach().clone() for name, weight in weights.items()}
    for step in range(14):
        for weight in weights.values():
            weight.grad = torch.cos(torch.arange(6.0).to(weight).view(2, 3) + 1.2 * step)
        free = {name: (weight - 0.1 * weight.grad).detach() for name, weight in weights.items()}
        optimizer.step()
        for name, k in ks.items():
            expected, states[name] = literal_step(states[name], free[name], anchors[name], weights[name].grad, k=k)
            torch.testing.assert_close(weights[name].detach(), expected, rtol=1e-12, atol=1e-12)
            weights[name].data.copy_(expected)
    assert ftp.radii() == pytest.approx({name: state.radius for name, state in states.items()}, rel=1e-11, abs=0)
    assert ftp.radii()["one"] != ftp.radii()["two"]


@pytest.mark.parametrize("loads", WITH_TRITON)
@pytest.mark.parametrize("saves", WITH_TRITON)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_saved_by_one_backend_loads_in_another(saves, loads, dtype):
    if INTERPRETED and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter does not round to bfloat16")

    def run(weight, ftp, steps):
        optimizer = torch.optim.SGD([weight], lr=0.1)
        ftp.attach(optimizer)
        for step in steps:
            weight.grad = torch.sin(torch.arange(12.0).view(3, 4) + step).to(weight)
            optimizer.step()

    weight = nn.Parameter(torch.ones(3, 4, dtype=dtype, device=device_of(saves)))
    ftp = FTP([("weight", weight)], backend=saves)
    run(weight, ftp, range(5))
    other = nn.Parameter(weight.detach().to(device_of(loads), copy=True))
    other_ftp = FTP([("weight", other)], backend=loads)
    other_ftp.load_state_dict(ftp.state_dict())
    run(weight, ftp, range(5, 10))
    run(other, other_ftp, range(5, 10))
    torch.testing.assert_close(weight.cpu(), other.cpu())
    assert other_ftp.radii() == pytest.approx(ftp.radii(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_the_number_of_threads_changes_rounding_only(backend, threads):
    torch.manual_seed(0)
    shapes = [(1000, 300), (7, 90_000), (5,), (40, 3, 3, 3), (300_000,)]
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(4)]

    def run():
        weights = {str(i): nn.Parameter(w.clone()) for i, w in enumerate(start)}
        optimizer = torch.optim.SGD(weights.values(), lr=0.1)
        ftp = FTP(weights.items(), backend=backend).attach(optimizer)
        for step in gradients:
            for weight, gradient in zip(weights.values(), step, strict=True):
                weight.grad = gradient.clone()
            optimizer.step()
        return list(weights.values()), ftp.radii()

    expected, expected_radii = run()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual, radii = run()
        again, _ = run()
    finally:
        torch.set_num_threads(before)
    for a, b, c in zip(expected, actual, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert torch.equal(b, c)
    assert radii == pytest.approx(expected_radii, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copied_state_leaves_that_of_the_original_alone(backend, take_step):
    torch.manual_seed(0)
    weights = torch.randn(6, 200)
    state = TensorState(weights + 0.1, weights)
    take_step(backend, [state], [weights], [torch.ones(6, 200)])
    before = {name: copy.deepcopy(value) for name, value in state.state_dict().items()}
    other = copy.deepcopy(state)
    take_step(backend, [other], [weights + 1], [torch.ones(6, 200)])
    for name, value in state.state_dict().items():
        assert torch.equal(torch.as_tensor(before[name]), torch.as_tensor(value))
    assert not torch.equal(other.change, state.change) and other.numbers.tolist() != state.numbers.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_storage_gives_nearly_the_same(backend):
    def run(**storage):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(6, 50))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        ftp = FTP([("weight", weight)], backend=backend, **storage).attach(optimizer)
        for _ in range(10):
            weight.grad = torch.randn(6, 50)
            optimizer.step()
        return weight, ftp

    exact, ftp = run()
    offloaded, _ = run(anchor_device="cpu")
    halved, half = run(direction_dtype="bfloat16")
    assert torch.equal(exact, offloaded)
    torch.testing.assert_close(exact, halved, rtol=1e-2, atol=1e-2)
    assert half.radii() == pytest.approx(ftp.radii(), rel=2e-2)
    sizes = [
        sum(t.nbytes for t in s.state_dict()["tensors"]["weight"].values() if torch.is_tensor(t)) for s in (ftp, half)
    ]
    assert sizes == [6 * 50 * 8 + 6 * 8, 6 * 50 * 6 + 6 * 8]


@pytest.mark.parametrize("wrong", ["bfloat61", "int8", "nn"])
def test_a_direction_dtype_that_holds_no_fractions_is_refused(wrong):
    with pytest.raises(ValueError, match=r"direction_dtype.*try 'bfloat16'"):
        FTP([("weight", nn.Parameter(torch.ones(2)))], direction_dtype=wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("storage", [{}, {"anchor_device": "cpu"}, {"direction_dtype": "bfloat16"}], ids=str)
def test_a_model_half_on_a_gpu_is_projected_as_on_cpu(storage):
    results = []
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        start = [torch.randn(5, 7, generator=generator) for _ in range(2)]
        weights = {"here": nn.Parameter(start[0]), "there": nn.Parameter(start[1].to(device))}
        optimizer = torch.optim.SGD(weights.values(), lr=0.1, foreach=False)
        FTP(weights.items(), **storage).attach(optimizer)
        for _ in range(6):
            for weight in weights.values():
                weight.grad = torch.randn(5, 7, generator=generator).to(weight.device)
            optimizer.step()
        results.append([weight.detach().cpu() for weight in weights.values()])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["paper", "exact", "one_pass"])
@pytest.mark.parametrize("backend", WITH_TRITON)
def test_tensors_of_all_kinds_at_once(backend, method, take_step, monkeypatch):
    """Dtypes and layouts, rows longer than a block, a tensor that has grown, a weight that is no number."""
    if backend == "triton":
        triton_backend = importlib.import_module("ftp_cl.projection.backends.triton_backend")
        assert triton_backend.works(triton_backend.TritonBackend, torch.zeros((), device=device_of(backend)).device)
        monkeypatch.setattr(triton_backend, "AT_ONCE", 2)

    def run(name, device):
        generator = torch.Generator().manual_seed(0)
        shapes = [(3, 2500), (9,), (), (4, 3, 3, 3), (5, 8), (6, 4), (2, 10_000), (8, 4096), (1, 4097)]
        weights = [torch.randn(shape, generator=generator) for shape in shapes]
        weights[3] = weights[3].to(memory_format=torch.channels_last)
        weights[4] = weights[4].half()
        weights = [weight.to(device) for weight in weights]
        anchors = [weight * 0.9 for weight in weights]
        anchors[5] = anchors[5][:4]
        storage = Storage(keeps_change=method != "one_pass")
        states = [TensorState(anchor, weight, storage) for anchor, weight in zip(anchors, weights, strict=True)]
        numbers, skipped = [], []
        for step in range(4):
            if step == 2:
                weights[0][1, 2400] = float("nan")
            gradients = [torch.cos(weight + step) for weight in weights]
            skipped.append(take_step(name, states, weights, gradients, Rule(method=method)))
            numbers.append(torch.stack([state.numbers for state in states]).cpu())
            weights = [weight + 0.1 * torch.cos(weight) for weight in weights]
        kept = [state.change for state in states if state.change is not None]
        return numbers, [*weights, *kept, *(state.norms for state in states)], skipped

    (expected, tensors, names), (numbers, others, same) = run("torch", "cpu"), run(backend, device_of(backend))
    assert [name for step in names for name, bad in step.items() if bad] == ["0", "0"]
    assert [dict(sorted(step.items())) for step in names] == [dict(sorted(step.items())) for step in same]
    for one, other in zip(expected, numbers, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-5)
    for tensor, other in zip(tensors, others, strict=True):
        torch.testing.assert_close(other.cpu(), tensor, equal_nan=True, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("backend", WITH_TRITON)
def test_what_a_scaler_says_is_heeded_where_the_tensors_are(backend, one_pass):
    """Votes are divided by its scale; where it has found infinities, weights and state stay as they were."""

    def run(scale, found_inf, device):
        generator = torch.Generator().manual_seed(0)
        rule = Rule(method="one_pass" if one_pass else "paper")
        weights = [torch.randn(shape, generator=generator).to(device) for shape in [(3, 20), (7,), (1, 9000)]]
        storage = Storage(keeps_change=not one_pass)
        states = [TensorState(0.9 * weight, weight, storage) for weight in weights]
        before = []
        for step in range(3):
            updates = [
                Update(str(i), w, scale * torch.cos(w + step), s, {})
                for i, (w, s) in enumerate(zip(weights, states, strict=True))
            ]
            parts = parts_of(updates, get_backends(backend))
            found = torch.full((), found_inf * (step == 2), device=device)
            for part in parts:
                part.vote(rule)
            kept = [*weights, *(s.norms for s in states), *(s.numbers for s in states)]
            kept += [s.change for s in states if s.change is not None]
            before = [tensor.clone() for tensor in kept]
            skipped = [part.project(rule, Scaler(torch.full((), scale, device=device), found)) for part in parts]
            if found > 0:
                assert all(torch.equal(*pair) for pair in zip(kept, before, strict=True))
                assert not torch.cat(skipped).any()
            for weight in weights:
                weight.add_(0.1 * torch.cos(weight)) if step < 1 else None
        return torch.stack([state.numbers for state in states]).cpu()

    plain = run(1.0, 0.0, device_of(backend))
    torch.testing.assert_close(run(4.0, 0.0, device_of(backend)), plain)
    assert run(4.0, 1.0, device_of(backend))[:, STEPS].tolist() == [2, 2, 2] and plain[:, STEPS].tolist() == [3, 3, 3]


def test_auto_is_the_fastest_for_each_tensor_that_is_there():
    names = [backend.name for backend in get_backends("auto") if backend.name not in ("factored", "sharded")]
    assert names == [name for name in ("numba", "triton", "torch") if name in available_backends()]


def test_an_unknown_backend_names_those_available():
    with pytest.raises(ValueError, match=r"backend='cuda' is unknown; available are 'auto', .*'torch'"):
        FTP([("weight", nn.Parameter(torch.ones(2)))], backend="cuda")


def test_a_backend_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    assert available_backends() == ["torch"]
    with pytest.raises(ValueError, match=r"'numba' is not installed: pip install 'ftp-cl\[fast\]'; available"):
        get_backends("numba")


@pytest.mark.skipif("numba" not in available_backends(), reason="numba is not installed")
def test_loops_kept_on_disk_are_named_after_all_files_that_they_are_compiled_from():
    kernels = importlib.import_module("ftp_cl.projection.backends.numba_kernels")
    known = {part.__name__ for part in kernels._IMPORTED}
    for part in (kernels, *kernels._IMPORTED):
        for node in ast.walk(ast.parse(inspect.getsource(part))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ftp_cl"):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert node.module in known or names <= known, f"{part.__name__} imports {names}"
