"""Parameters that appear, grow, shrink, vanish, freeze, lack a gradient, are tied or change their kind."""

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ftp_cl.optim import FTP, AdamP
from ftp_cl.projection import Storage
from ftp_cl.projection.backends import factored, torch_backend


def step(optimizer, *parameters):
    """One step with gradients of ones."""
    optimizer.zero_grad()
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def linear(rows=3):
    torch.manual_seed(0)
    return nn.Linear(2, rows, bias=False)


def steps_of(ftp, name="weight"):
    return ftp.state_dict()["tensors"][name]["steps"]


def test_a_tensor_at_its_first_step_stays_at_its_anchor():
    model = linear()
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=1e-7)


def test_a_new_module_of_the_model_is_found_by_itself():
    model = nn.ModuleDict({"old": linear()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, *model.parameters())
    model["new"] = linear()
    optimizer.add_param_group({"params": model["new"].parameters()})
    step(optimizer, *model.parameters())
    assert steps_of(ftp, "old.weight") == 2
    assert steps_of(ftp, "new.weight") == 1


def test_a_parameter_without_a_name_is_left_free_and_named_once_in_the_log(caplog):
    model, stranger = linear(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*model.parameters(), stranger], lr=0.1)
    ftp = FTP(model).attach(optimizer)
    for _ in range(3):
        step(optimizer, model.weight, stranger)
    torch.testing.assert_close(stranger.detach(), torch.full((2,), -0.3))
    assert caplog.text.count("has no name here") == 1
    assert list(ftp.radii()) == ["weight"]


def test_a_group_added_to_a_drop_in_optimizer_is_projected():
    first, second = linear(), linear()
    optimizer = AdamP([{"params": [first.weight], "name": ["first"]}])
    optimizer.add_param_group({"params": [second.weight], "name": ["second"], "pre": [torch.zeros(3, 2)]})
    step(optimizer, first.weight, second.weight)
    assert steps_of(optimizer.ftp, "second") == 1
    torch.testing.assert_close(second.weight.detach(), torch.zeros(3, 2), rtol=0, atol=1e-7)


def test_grown_rows_are_free_and_old_rows_keep_anchor_and_state():
    model = linear(rows=3)
    anchor = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    step(optimizer, model.weight)
    old = model.weight.detach().clone()
    model.weight = nn.Parameter(torch.cat([old, torch.zeros(2, 2)]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp.track()
    ftp.attach(optimizer)
    step(optimizer, model.weight)
    assert steps_of(ftp) == 3
    torch.testing.assert_close(model.weight[3:].detach(), torch.full((2, 2), -0.1))
    assert torch.equal(ftp.state_dict()["tensors"]["weight"]["anchor"], anchor)
    distances = ftp.distances()["weight"]
    assert distances.shape == (3,)
    assert distances.max() <= ftp.radii()["weight"] + 1e-6


@pytest.mark.parametrize("shape", [(2, 2), (3, 4), (6,), (3, 2, 1)])
def test_a_tensor_of_another_shape_is_anchored_anew(shape, caplog):
    model = linear(rows=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    model.weight = nn.Parameter(torch.ones(shape))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp.track()
    ftp.attach(optimizer)
    step(optimizer, model.weight)
    assert steps_of(ftp) == 1
    assert "anchored anew" in caplog.text
    torch.testing.assert_close(model.weight.detach(), torch.ones(shape), rtol=0, atol=1e-7)


def test_the_state_of_a_vanished_tensor_waits_for_its_return():
    model = nn.ModuleDict({"stays": linear(), "leaves": linear()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, *model.parameters())
    module = model["leaves"]
    del model["leaves"]
    ftp.track()
    assert list(ftp.radii()) == ["stays.weight"]
    model["leaves"] = module
    ftp.track()
    step(optimizer, *model.parameters())
    assert steps_of(ftp, "leaves.weight") == 2


def test_a_tensor_without_a_gradient_skips_the_step():
    model = nn.ModuleDict({"a": linear(), "b": linear()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, *model.parameters())
    step(optimizer, model["a"].weight)
    assert (steps_of(ftp, "a.weight"), steps_of(ftp, "b.weight")) == (2, 1)


def test_a_frozen_tensor_keeps_its_state_and_goes_on_when_thawed():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    model.weight.requires_grad_(False)
    step(optimizer)
    assert steps_of(ftp) == 1
    model.weight.requires_grad_(True)
    step(optimizer, model.weight)
    assert steps_of(ftp) == 2


def test_a_step_without_any_gradient_changes_nothing():
    model = linear()
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer)
    assert torch.equal(model.weight, before) and ftp.state_dict()["tensors"] == {}


def test_tied_weights_are_projected_once_a_step():
    model = nn.ModuleDict({"a": linear(), "b": linear()})
    model["b"].weight = model["a"].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model["a"].weight)
    assert ftp.projected_names() == ["a.weight"]
    assert steps_of(ftp, "a.weight") == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_state_follows_a_model_to_another_dtype(dtype):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    model.to(dtype)
    step(optimizer, model.weight)
    saved = ftp.state_dict()["tensors"]["weight"]
    assert saved["anchor"].dtype == saved["change"].dtype == dtype
    assert saved["steps"] == 2


def test_the_state_follows_a_model_to_channels_last(make_model, train, assert_same_weights):
    """Sums are taken in another order then, so weights agree closely, not bit for bit."""
    plain, moved = make_model(), make_model()
    plain_optimizer, optimizer = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (plain, moved))
    FTP(plain).attach(plain_optimizer), FTP(moved).attach(optimizer)
    train(plain, plain_optimizer, range(6))
    train(moved, optimizer, range(3))
    moved.to(memory_format=torch.channels_last)
    train(moved, optimizer, range(3, 6))
    for left, right in zip(plain.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_torch_s_default_device_does_not_matter(backend):
    """From the first step on, when nothing is kept of steps before, also of an adapter and of a loaded state."""
    module = get_peft_model(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), LoraConfig(r=2, target_modules=["0"]))
    weights = [parameter.requires_grad_() for parameter in module.parameters()]
    groups = [{"params": weights[:2], "ftp_k": 0.5}, {"params": weights[2:]}]
    for kept in (torch_backend._each, torch_backend._segments, factored._column):
        kept.cache_clear()
    optimizer, ftp = torch.optim.SGD(groups, lr=0.1, fused=True), FTP(module, backend=backend)
    ftp.attach(optimizer)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    with torch.device("meta"):
        optimizer.step()
        ftp.load_state_dict(ftp.state_dict())
        optimizer.step()
        optimizer.found_inf = torch.ones((), device="cpu")  # as a GradScaler whose step is left out
        optimizer.step()
    assert [numbers["steps"] for numbers in ftp.state_dict()["tensors"].values()] == [2] * 5


def test_mixed_dtypes_in_one_model():
    model = nn.ModuleDict({"f32": linear(), "f64": linear().double(), "bf16": linear().bfloat16()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    for _ in range(4):
        step(optimizer, *model.parameters())
    radii = ftp.radii()
    assert radii["f32.weight"] == pytest.approx(radii["f64.weight"], rel=1e-5)
    assert radii["f32.weight"] == pytest.approx(radii["bf16.weight"], rel=1e-2)


def test_empty_tensors_are_left_alone():
    model = nn.ParameterDict({"empty": nn.Parameter(torch.zeros(0, 3)), "full": nn.Parameter(torch.zeros(2, 3))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, *model.parameters())
    assert list(ftp.radii()) == ["full"]


def test_complex_weights_are_refused_by_name():
    model = nn.ParameterDict({"wave": nn.Parameter(torch.zeros(2, dtype=torch.complex64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    FTP(model).attach(optimizer)
    with pytest.raises(ValueError, match="wave is complex"):
        step(optimizer, model["wave"])


def test_sparse_gradients_are_refused_by_name():
    model = nn.Embedding(4, 2, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    FTP(model).attach(optimizer)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="weight has a sparse gradient"):
        optimizer.step()


def test_a_group_may_have_its_own_k_or_none_at_all():
    model = nn.ModuleDict({name: linear() for name in ("default", "own", "free")})
    optimizer = torch.optim.SGD(
        [
            {"params": model["default"].parameters()},
            {"params": model["own"].parameters(), "ftp_k": 0.0},
            {"params": model["free"].parameters(), "ftp": False},
        ],
        lr=0.1,
    )
    ftp = FTP(model).attach(optimizer)
    for sign in (1, 1, 1, 1, -1, -1, -1, -1, -1, -1):
        optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, sign)
        optimizer.step()
    radii = ftp.radii()
    assert set(radii) == {"default.weight", "own.weight"}
    assert radii["own.weight"] > radii["default.weight"]


def test_a_wrong_group_setting_is_refused():
    model = linear()
    optimizer = torch.optim.SGD([{"params": model.parameters(), "ftp_k": 2}], lr=0.1)
    FTP(model).attach(optimizer)
    with pytest.raises(ValueError, match="k=2 lies outside"):
        step(optimizer, model.weight)


# ---- anchors given by name ------------------------------------------------------------------------------------------


def test_weights_start_from_an_anchor_given_by_wrapped_names():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    FTP(model, anchor={"module.weight": torch.zeros(3, 2)}).attach(optimizer)
    step(optimizer, model.weight)
    torch.testing.assert_close(model.weight.detach(), torch.zeros(3, 2), rtol=0, atol=1e-7)


def test_an_anchor_must_have_each_projected_tensor():
    model = nn.ModuleDict({"body": linear(), "head": linear()})
    with pytest.raises(ValueError, match=r"no tensor 'head\.weight'; exclude it or pass weights"):
        FTP(model, anchor={"body.weight": torch.zeros(3, 2)})
    FTP(model, anchor={"body.weight": torch.zeros(3, 2)}, exclude="head")


def test_an_anchor_must_have_the_same_shape():
    with pytest.raises(ValueError, match=r"'weight' has shape \(3, 3\), the model's \(3, 2\)"):
        FTP(linear(), anchor={"weight": torch.zeros(3, 3)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3, 2, dtype=torch.complex64), "is of torch.complex64"),
        (torch.zeros(3, 2, dtype=torch.int8), "is of torch.int8"),
        (torch.tensor([[0.0, 1], [2, 3], [4, float("nan")]]), "is not finite"),
        (torch.full((3, 2), -float("inf")), "is not finite"),
        (torch.full((3, 2), 1e300, dtype=torch.float64), "is not finite"),
        (torch.zeros(3, 2).to_sparse(), "is not a plain dense tensor"),
        (torch.zeros(3, 2, device="meta"), "is on the meta device"),
        ([[0.0, 0.0]] * 3, "is no tensor but a list"),
    ],
)
def test_an_anchor_that_no_weights_can_stay_near_is_refused(value, message):
    with pytest.raises(ValueError, match=f"The anchor's 'weight' {message}"):
        FTP(linear(), anchor={"weight": value})
    frozen = linear().requires_grad_(False)
    with pytest.raises(ValueError, match=f"The anchor's 'weight' {message}"):
        FTP(frozen, anchor={"weight": value})
    if isinstance(value, torch.Tensor):
        with pytest.raises(ValueError, match=f"The anchor's 'weight' {message}"):
            AdamP([{"params": [linear().weight], "name": ["weight"], "pre": [value]}])
    FTP(linear(), anchor={"weight": torch.zeros(3, 2, dtype=torch.float64), "batches": 3, "count": torch.tensor(1)})


def test_an_anchors_keys_are_names():
    with pytest.raises(TypeError, match="3 is no name"):
        FTP(linear(), anchor={3: torch.zeros(3, 2)})


def test_an_anchor_is_the_weights_as_they_were_given_for_free_and_frozen_tensors_too():
    model = nn.Sequential(linear(), linear(), linear())
    model[1].requires_grad_(False)
    given = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    ftp = FTP(model, anchor=model.state_dict(), exclude="0")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ftp.attach(optimizer)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(1.0)
    ftp.track(model, exclude=())
    model[1].requires_grad_(True)
    step(optimizer, *model.parameters())
    for name, weights in model.named_parameters():
        torch.testing.assert_close(weights.detach(), given[name], rtol=0, atol=1e-7)


def test_a_tensor_that_is_not_finite_is_projected_once_it_has_a_finite_anchor(caplog):
    model = linear()
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    assert ftp.state_dict()["tensors"] == {} and "weight is not finite" in caplog.text
    with torch.no_grad():
        model.weight.fill_(1.0)
    step(optimizer, model.weight)
    assert (ftp.state_dict()["tensors"]["weight"]["anchor"] == 1).all()


def test_restart_anchors_anew_at_the_current_weights():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    for _ in range(5):
        step(optimizer, model.weight)
    before = model.weight.detach().clone()
    ftp.restart()
    step(optimizer, model.weight)
    assert steps_of(ftp) == 1
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=1e-7)


def test_what_a_captured_graph_writes_to_stays_as_long_as_ftp_does(monkeypatch):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    kept = [weakref.ref(tensor) for tensor in ftp.state_dict()["tensors"]["weight"].values() if torch.is_tensor(tensor)]
    with monkeypatch.context() as within:
        within.setattr("ftp_cl.optim.step.is_captured", lambda device: True)
        step(optimizer, model.weight)
    ftp.restart()
    step(optimizer, model.weight)
    assert all(tensor() is not None for tensor in kept)
    ftp.detach()
    del ftp
    gc.collect()
    assert not any(tensor() is not None for tensor in kept)


def test_move_anchor_pulls_towards_the_new_weights():
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    ftp.move_anchor({"weight": torch.ones(3, 2)})
    step(optimizer, model.weight)
    torch.testing.assert_close(model.weight.detach(), torch.ones(3, 2), rtol=0, atol=1e-7)


@pytest.mark.parametrize("wrong", [{}, {"weight": torch.ones(2, 2)}])
def test_a_wrong_new_anchor_is_refused_and_changes_nothing(wrong):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model).attach(optimizer)
    step(optimizer, model.weight)
    with pytest.raises(ValueError):
        ftp.move_anchor(wrong)
    step(optimizer, model.weight)
    assert steps_of(ftp) == 2
    ftp.restart()
    step(optimizer, model.weight)  # not around the refused anchor


# ---- groups of the drop-in optimizers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"params": [nn.Parameter(torch.ones(2))]}, "needs names"),
        ({"params": [nn.Parameter(torch.ones(2))], "name": ["a", "b"]}, '1 "params" but 2 "name"'),
        (
            {"params": [nn.Parameter(torch.ones(2))], "name": ["a"], "pre": [torch.ones(2), torch.ones(2)]},
            '1 "params" but 2 "pre"',
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(group, message):
    with pytest.raises(ValueError, match=message):
        AdamP([group])


def test_plain_parameters_without_names_are_refused():
    with pytest.raises(ValueError, match="needs names"):
        AdamP(linear().parameters())


def test_wrong_names_in_exclude_set_are_refused():
    weight = linear().weight
    with pytest.raises(ValueError, match=r"exclude='head\.wieght' matches no parameter; .*head\.weight"):
        AdamP([{"params": [weight], "name": ["head.weight"]}], exclude_set={"head.wieght"})


def test_a_group_without_anchors_beside_one_with():
    first, second = linear(), linear()
    start = second.weight.detach().clone()
    optimizer = AdamP(
        [
            {"params": [first.weight], "name": ["first"], "pre": [torch.zeros(3, 2)]},
            {"params": [second.weight], "name": ["second"], "pre": None},
        ]
    )
    step(optimizer, first.weight, second.weight)
    torch.testing.assert_close(first.weight.detach(), torch.zeros(3, 2), rtol=0, atol=1e-7)
    torch.testing.assert_close(second.weight.detach(), start, rtol=0, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"anchor_dtype": "bfloat16"}])
def test_a_given_anchor_is_kept_once_also_after_loading(settings, reachable):
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model, anchor={"weight": torch.ones(3, 2)}, **settings).attach(optimizer)
    for _ in range(2):
        step(optimizer, model.weight)
        kept = [each for each in reachable(ftp._states) if type(each) is torch.Tensor and each.shape == (3, 2)]
        assert len(kept) == 2, "anchor and change"
        ftp.load_state_dict(ftp.state_dict())


def test_a_given_anchor_survives_steps_in_half_precision():
    model, given = linear(), torch.full((3, 2), 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ftp = FTP(model, anchor={"weight": given}).attach(optimizer)
    step(optimizer, model.bfloat16().weight)
    ftp.restart()
    step(optimizer, model.float().weight)
    assert torch.equal(ftp.state_dict()["tensors"]["weight"]["anchor"], given)


def test_a_given_anchor_waits_on_the_anchors_device(monkeypatch):
    ftp = FTP(linear())
    monkeypatch.setattr(ftp._states, "_storage", Storage(anchor_device=torch.device("meta")))  # stands for another one
    ftp.move_anchor({"weight": torch.ones(3, 2), "free": torch.ones(1)})
    assert all(value.is_meta for value in ftp._states.given.values())


def test_an_anchor_given_as_the_models_own_state_dict_stays_where_it_is():
    model = linear()
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ftp = FTP(model, anchor=model.state_dict()).attach(optimizer)
    for _ in range(3):
        step(optimizer, model.weight)
    ftp.restart()
    step(optimizer, model.weight)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=1e-6)
