"""State dicts from outside: what is wrong in them is refused before it is used, and changes nothing."""

import copy
import math

import pytest
import torch

from ftp_cl.optim import FTP, AdamP
from ftp_cl.optim.fused_adam import FusedStep
from ftp_cl.projection import LiteralState, available_backends, literal_step

NAME = "conv.weight"


def prepare(model, backend="auto"):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    return optimizer, FTP(model, exclude="head", backend=backend).attach(optimizer)


@pytest.fixture
def saved(make_model, train):
    """The optimizer's state dict, with FTP's, after five steps."""
    model = make_model()
    optimizer, _ = prepare(model)
    train(model, optimizer, range(5))
    return copy.deepcopy(optimizer.state_dict())


def resize_storage(tensor):
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def with_nan(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = math.nan
    return tensor


WRONG = {
    "missing": lambda t: t.pop("norms"),
    "unknown": lambda t: t.update(momentum=0.0),
    "two-dimensional norms": lambda t: t.update(norms=t["norms"].repeat(2, 1)),
    "too few norms": lambda t: t.update(norms=t["norms"][:1]),
    "no norms": lambda t: t.update(norms=t["norms"][:0]),
    "negative norms": lambda t: t.update(norms=-t["norms"]),
    "norms of 0": lambda t: t.update(norms=torch.zeros_like(t["norms"])),
    "NaN in norms": lambda t: t.update(norms=with_nan(t["norms"])),
    "another shape": lambda t: t.update(change=t["change"][:, :1]),
    "transposed": lambda t: t.update(change=t["change"].permute(3, 2, 1, 0)),
    "flat": lambda t: t.update(change=t["change"].flatten()),
    "NaN in the change": lambda t: t.update(change=with_nan(t["change"])),
    "NaN in the anchor": lambda t: t.update(anchor=with_nan(t["anchor"])),
    "an infinite anchor": lambda t: t.update(anchor=t["anchor"] * math.inf),
    "an empty anchor": lambda t: t.update(anchor=t["anchor"][:0], change=t["change"][:0], norms=t["norms"][:0]),
    "integers": lambda t: t.update(change=t["change"].int()),
    "complex": lambda t: t.update(anchor=t["anchor"].to(torch.complex64)),
    "float8": lambda t: t.update(change=t["change"].to(torch.float8_e4m3fn)),
    "sparse": lambda t: t.update(change=t["change"].to_sparse()),
    "meta": lambda t: t.update(norms=t["norms"].to("meta")),
    "no memory": lambda t: t.update(change=resize_storage(t["change"])),
    "a list": lambda t: t.update(norms=t["norms"].tolist()),
    "None": lambda t: t.update(anchor=None),
    "negative steps": lambda t: t.update(steps=-1),
    "half a step": lambda t: t.update(steps=1.5),
    "steps in words": lambda t: t.update(steps="5"),
    "steps without end": lambda t: t.update(steps=10**400),
    "negative skips": lambda t: t.update(skipped=-1),
    "a negative radius": lambda t: t.update(value=-1.0),
    "no radius": lambda t: t.update(value=0.0),
    "an infinite radius": lambda t: t.update(value=math.inf),
    "a moment of NaN": lambda t: t.update(first_moment=math.nan),
    "a negative square": lambda t: t.update(second_moment=-1.0),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_tensor_state_is_refused_on_both_ways_and_nothing_changes(make_model, train, saved, wrong):
    model = make_model()
    optimizer, ftp = prepare(model)
    train(model, optimizer, range(2))
    WRONG[wrong](saved["ftp"]["tensors"][NAME])
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=NAME):
        ftp.load_state_dict(saved["ftp"])
    with pytest.raises(ValueError, match=NAME):
        optimizer.load_state_dict(saved)
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)
    assert ftp.state_dict()["tensors"].keys() == before["ftp"]["tensors"].keys()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda state: state.update(more=1),
        lambda state: state.update(tensors=[]),
        lambda state: state.update(version="1"),
        lambda state: state["tensors"].update({NAME: None}),
        lambda state: state["tensors"].update({3: state["tensors"][NAME]}),
        lambda state: state["tensors"].update({f"module.{NAME}": state["tensors"][NAME]}),
    ],
)
def test_a_wrong_state_around_the_tensors_is_refused(make_model, saved, wrong):
    wrong(saved["ftp"])
    ftp = FTP(make_model())
    with pytest.raises(ValueError, match="state"):
        ftp.load_state_dict(saved["ftp"])
    assert ftp.state_dict()["tensors"] == {}


def test_ftp_takes_nothing_of_a_state_whose_rest_the_optimizer_refuses(make_model, train, saved):
    model = make_model()
    optimizer, ftp = prepare(model)
    train(model, optimizer, range(2))
    saved["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict(saved)
    assert ftp.state_dict()["tensors"][NAME]["steps"] == 2


def test_adamp_refuses_a_wrong_state(make_model, train):
    model = make_model()
    names, parameters = zip(*model.named_parameters(), strict=True)
    optimizer = AdamP([{"params": parameters, "name": names}])
    train(model, optimizer, range(2))
    state = optimizer.state_dict()
    state["ftp"]["tensors"][NAME]["norms"] = torch.ones(1)
    with pytest.raises(ValueError, match=NAME):
        optimizer.load_state_dict(state)


def cast(tree, change):
    if isinstance(tree, dict):
        return {key: cast(value, change) for key, value in tree.items()}
    return change(tree) if isinstance(tree, torch.Tensor) else tree


HARMLESS = {
    "float32": lambda t: t.float(),
    "float64": lambda t: t.double(),
    "gaps": lambda t: torch.stack([t, t + 1], dim=-1)[..., 0],
    "reversed memory": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() else t,
    "parameters": lambda t: torch.nn.Parameter(t.clone()),
}


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("change", HARMLESS)
def test_a_state_in_another_precision_or_layout_goes_on_alike(make_model, train, saved, backend, change):
    models = [make_model() for _ in range(2)]
    for model, state in zip(models, (saved, {**saved, "ftp": cast(saved["ftp"], HARMLESS[change])}), strict=True):
        optimizer, ftp = prepare(model, backend)
        optimizer.load_state_dict({**copy.deepcopy(state), "ftp": state["ftp"]})  # torch keeps Adam's step counters
        train(model, optimizer, range(5, 10))
        assert ftp.state_dict()["tensors"][NAME]["norms"].dtype == torch.float64
    for expected, got in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("backend", available_backends())
def test_after_a_state_of_version_0_1_the_next_step_is_the_literal_one(backend):
    gradient = torch.tensor([[1.0, -3.0, 0.5], [-1.0, 0.0, 2.0]])
    anchor, change = torch.ones(2, 3), torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.25, 0.5]])
    numbers = {"value": 1.5, "first_moment": 0.2, "second_moment": 0.3, "steps": 4, "skipped": 1}
    saved = {"anchor": anchor, "change": change, "norms": torch.tensor([3.0, 1.25]).double(), **numbers}
    weight = torch.nn.Parameter(anchor + 0.5 * change)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    ftp = FTP([("weight", weight)], backend=backend).attach(optimizer)
    ftp.load_state_dict({"version": 1, "tensors": {"weight": saved}})
    before = LiteralState(4, 1.5, 0.2, 0.3, change, 1)
    expected, state = literal_step(before, weight.detach() - 0.5 * gradient, anchor, gradient)
    weight.grad = gradient
    optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)
    assert ftp.radii()["weight"] == pytest.approx(state.radius) and state.radius != 1.5
    assert ftp.skipped() == {"weight": 1}


@pytest.mark.skipif("numba" not in available_backends(), reason="Numba is not installed")
@pytest.mark.parametrize(
    "moments",
    [
        {"exp_avg": torch.zeros(1, 1)},
        {"exp_avg_sq": torch.zeros(1, 4)},
        {"exp_avg": torch.zeros(1)},
        {"step": torch.zeros(0)},
    ],
)
def test_moments_of_another_shape_are_not_taken_by_the_compiled_loops(moments):
    model = torch.nn.Linear(5, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ftp = FTP(model, backend="numba").attach(optimizer)
    model.weight.grad = torch.ones(1, 5)
    optimizer.step()
    (update,), state = ftp._step.updates_of(optimizer, ftp.k), optimizer.state[model.weight]
    numba = [backend for backend in ftp._step._backends if backend.name == "numba"]
    assert not FusedStep(optimizer, [update], numba).left
    state.update(moments)
    assert FusedStep(optimizer, [update], numba).left == [update]


@pytest.mark.parametrize("state", [None, 3, [torch.zeros(2)]])
def test_a_parameters_state_that_is_no_mapping_is_refused(make_model, state):
    optimizer = torch.optim.AdamW(make_model().parameters())
    FTP(make_model(), exclude="head").attach(optimizer)
    content = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"state of parameter 0 is a .*, not a mapping"):
        optimizer.load_state_dict({**content, "state": {0: state}})
