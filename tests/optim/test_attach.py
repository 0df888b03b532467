"""Attaching FTP to an optimizer and detaching it."""

import contextlib
import gc
import weakref

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP, AdamP, AnchoredSteps, FixedRadius
from ftp_cl.projection import available_backends


def hooks(optimizer):
    return {name: dict(value) for name, value in vars(optimizer).items() if name.endswith("_hooks")}


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


def test_a_detached_ftp_does_not_keep_the_optimizers_state_alive(model, train):
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(3))
    moments = [weakref.ref(state["exp_avg"]) for state in optimizer.state.values()]
    ftp.detach()
    del optimizer
    gc.collect()
    assert moments and not any(moment() is not None for moment in moments)


def test_detach_leaves_no_trace(model, optimizer, train):
    keys, hooks_before, state_keys = set(vars(optimizer)), hooks(optimizer), set(optimizer.state_dict())
    group_keys = set(optimizer.param_groups[0])
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(2))
    assert "ftp" in optimizer.state_dict()
    ftp.detach()
    assert hooks(optimizer) == hooks_before
    assert set(vars(optimizer)) == keys
    assert set(optimizer.state_dict()) == state_keys
    assert set(optimizer.param_groups[0]) == group_keys
    assert not ftp.is_attached_to(optimizer)


def test_training_after_detach_is_free(make_model, model, optimizer, train, assert_same_weights):
    FTP(model).attach(optimizer).detach()
    train(model, optimizer, range(3))
    plain = make_model()
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.05), range(3))
    assert_same_weights(model, plain)


def test_detach_twice_is_harmless(model, optimizer):
    ftp = FTP(model).attach(optimizer)
    ftp.detach()
    ftp.detach()


def test_attach_twice_projects_once(model, optimizer):
    ftp = FTP(model)
    assert ftp.attach(optimizer) is ftp
    before = hooks(optimizer)
    ftp.attach(optimizer)
    assert hooks(optimizer) == before


def test_attach_moves_to_a_new_optimizer_with_its_state(model, optimizer, train):
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(3))
    other = torch.optim.Adam(model.parameters())
    ftp.attach(other)
    assert ftp.is_attached_to(other) and not ftp.is_attached_to(optimizer)
    train(model, other, range(3, 5))
    assert ftp.state_dict()["tensors"]["conv.weight"]["steps"] == 5


def test_moving_on_from_an_optimizer_in_use_says_so(model, optimizer, caplog):
    ftp = FTP(model).attach(optimizer)
    ftp.attach(optimizer)
    ftp.detach()
    ftp.attach(optimizer)
    assert not caplog.text
    ftp.attach(torch.optim.Adam(model.parameters()))
    assert "steps of the SGD that it was attached to before are not projected any more" in caplog.text


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation as published code has it: up the gradient, and back before the real step."""

    def __init__(self, parameters, base, rho=0.5, **options):
        super().__init__(parameters, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.detach().clone()
            p.add_(p.grad, alpha=self.defaults["rho"])

    @torch.no_grad()
    def second_step(self):
        for p in self.param_groups[0]["params"]:
            p.data = self.state[p]["old"]
        self.base_optimizer.step()

    def step(self, closure=None):
        closure()
        self.first_step()
        loss = closure()
        self.second_step()
        return loss


@pytest.mark.parametrize("in_two", [True, False])
def test_sam_is_projected_around_the_weights_before_its_ascent(make_model, batch, in_two):
    model = make_model()
    optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1)
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    ftp = FTP(model).attach(optimizer)
    assert ftp.is_attached_to(optimizer) and ftp.is_attached_to(optimizer.base_optimizer)
    for number in range(4):
        images, labels = batch(number)

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            return loss

        if in_two:
            closure()
            optimizer.first_step()
            closure()
            optimizer.second_step()
        else:
            optimizer.step(closure)
    for name, p in model.named_parameters():
        rows = (p.detach() - anchor[name]).reshape(len(p) if p.dim() > 1 else 1, -1).abs().sum(dim=1)
        assert rows.max() <= ftp.radii()[name] + 1e-6
        assert torch.equal(ftp.state_dict()["tensors"][name]["anchor"], anchor[name])
    again = make_model()
    resumed = SAM(again.parameters(), torch.optim.SGD, lr=0.1)
    resumed_ftp = FTP(again).attach(resumed)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed_ftp.radii() == ftp.radii()


class Lookahead(torch.optim.Optimizer):
    """Another optimizer, in an attribute of any name, and weights of its own that follow it."""

    def __init__(self, parameters, **held):
        super().__init__(parameters, {})
        self.__dict__.update(held)


class ScheduleFree(torch.optim.SGD):
    """Evaluates averages of the weights that it trains."""

    def train(self):
        """Back to those that are trained."""

    def eval(self):
        """To the averages."""


def test_optimizers_that_move_weights_outside_their_own_step_are_refused(model, optimizer):
    ftp, steps = FTP(model), AnchoredSteps(FixedRadius(1.0), {p: p.detach() for p in model.parameters()})
    for wrong, message in [
        (Lookahead(model.parameters(), inner=optimizer), "holds another optimizer.*attribute `inner`"),
        (Lookahead(model.parameters(), all=[optimizer]), "attribute `all`"),
        (Lookahead(model.parameters(), x={"a": optimizer}), "attribute `x`"),
        (ScheduleFree(model.parameters()), "train.. and eval.., as schedule-free"),
    ]:
        for follower in (ftp, steps):
            with pytest.raises(TypeError, match=message):
                follower.attach(wrong)
        assert hooks(wrong) == hooks(torch.optim.SGD(model.parameters()))
    assert not ftp.is_attached_to(optimizer)


def told(caplog):
    return caplog.text.count("without a step that FTP saw")


@pytest.mark.parametrize("ask", ["radii", "summary", "state_dict"])
def test_asking_after_steps_that_were_not_seen_warns_once(model, optimizer, train, caplog, ask):
    ftp = FTP(model, exclude="head").attach(torch.optim.SGD(model.parameters(), lr=0.1))
    getattr(ftp, ask)()
    assert not told(caplog), "no weight has changed yet"
    train(model, optimizer, range(2))
    getattr(ftp, ask)()
    assert told(caplog) == 1 and "conv.weight" not in ftp.radii()
    getattr(ftp, ask)()
    assert told(caplog) == 1


def test_asking_an_ftp_that_was_never_attached_warns(model, optimizer, train, caplog):
    ftp = FTP(model)
    train(model, optimizer, range(1))
    assert ftp.radii() == {} and told(caplog) == 1


def test_weights_changed_by_hand_are_noticed_and_free_frozen_moved_or_seen_ones_are_not(make_model, train, caplog):
    model = make_model()
    model.conv.requires_grad_(False)
    groups = [{"params": [*model.norm.parameters(), *model.conv.parameters(), model.scale]}]
    optimizer = torch.optim.SGD([*groups, {"params": model.head.parameters(), "ftp": False}], lr=0.1)
    ftp = FTP(model).attach(optimizer)
    model.double().float()
    assert ftp.radii() == {} and not told(caplog)
    train(model, optimizer, range(2))
    assert len(ftp.radii()) == 3 and not told(caplog)
    model = make_model()
    ftp = FTP(model, exclude="norm").attach(torch.optim.SGD(model.parameters(), lr=0.1))
    model.conv.weight.data.sub_(0.1)
    assert ftp.radii() == {} and told(caplog) == 1


def test_a_second_ftp_on_one_optimizer_is_refused(model, optimizer):
    FTP(model).attach(optimizer)
    with pytest.raises(ValueError, match="Another FTP is attached"):
        FTP(model).attach(optimizer)


def test_attach_names_the_way_out_for_wrapped_optimizers(model):
    with pytest.raises(TypeError, match="unwrap it first"):
        FTP(model).attach(object())


def test_ftp_does_not_keep_the_optimizer_alive(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ftp = FTP(model).attach(optimizer)
    alive = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert alive() is None
    assert not ftp.is_attached_to(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1.5}, "outside"),
        ({"k": -0.1}, "outside"),
        ({"k": float("nan")}, "outside"),
        ({"k": "a"}, "outside"),
        ({"mu": 0.0}, "no step size"),
        ({"mu": float("inf")}, "no step size"),
        ({"anchor_device": "gpu"}, "anchor_device='gpu' is no device"),
        ({"anchor_device": "meta"}, "no device that holds numbers"),
        ({"anchor_device": "cuda:99"}, "no device that holds numbers"),
        ({"anchor_device": "hpu"}, "no device that holds numbers"),
        ({"direction_dtype": "float8_e4m3fn"}, "cannot be computed with"),
        ({"direction_dtype": torch.complex64}, "cannot be computed with"),
        ({"method": "other"}, "unknown"),
    ],
)
def test_wrong_settings_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        FTP(model, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (lambda model: model.parameters(), {}, r"named parameters \(model.named_parameters\(\)\), not a Parameter"),
        (lambda model: [{"params": list(model.parameters())}], {}, "not a dict"),
        (lambda model: model, {"exclude": None}, "not None; \\(\\) is for nothing"),
        (lambda model: model, {"exclude": nn.Linear(1, 1)}, "module types, not Linear"),
        (lambda model: model, {"exclude": ["head", 1]}, "module types, not 1;"),
        (lambda model: model, {"anchor": "weights.pt"}, "anchor takes weights by name"),
    ],
)
def test_arguments_of_another_kind_are_refused(model, arguments, options, message):
    with pytest.raises(TypeError, match=message):
        FTP(arguments(model), **options)


def test_named_parameters_may_be_a_mapping_or_any_pairs_and_numbers_tensors(model):
    expected = FTP(model).projected_names()
    assert FTP(dict(model.named_parameters())).projected_names() == expected
    assert FTP([[name, p] for name, p in model.named_parameters()]).projected_names() == expected
    assert FTP(model, k=torch.tensor(0.5), mu=torch.tensor(0.01)).projected_names() == expected


def test_exclude_may_be_an_iterator(model):
    ftp = FTP(model, exclude=(name for name in ["head"]))
    ftp.track(model)
    assert ftp.projected_names() == FTP(model, exclude="head").projected_names()


class Drifting(torch.optim.SGD):
    """Changes weights after the step of its parent class, whose step torch hooks as well once one has been made."""

    fails = False

    def step(self, closure=None):
        loss = super().step(closure)
        if self.fails:
            raise ArithmeticError
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(0.5)
        return loss


@pytest.mark.parametrize("rule", ["ftp", "fixed radius"])
def test_what_a_subclass_does_after_its_parents_step_is_projected(model, train, rule):
    torch.optim.SGD(model.parameters())
    assert torch.optim.SGD.step.hooked
    optimizer = Drifting(model.parameters(), lr=0.05)
    anchor = {name: weights.detach().clone() for name, weights in model.named_parameters()}
    if rule == "ftp":
        FTP(model).attach(optimizer)
    else:
        anchors = {weights: weights.detach().clone() for weights in model.parameters()}
        AnchoredSteps(FixedRadius(1e-3), anchors).attach(optimizer)

    def farthest():
        return max((weights - anchor[name]).abs().max() for name, weights in model.named_parameters())

    train(model, optimizer, range(2))
    assert farthest() < 0.02
    optimizer.fails = True
    with pytest.raises(ArithmeticError):
        train(model, optimizer, [2])
    optimizer.fails = False
    train(model, optimizer, [3])  # the step that failed does not count as one in progress
    assert farthest() < 0.05


class Retrying(torch.optim.SGD):
    """Goes on after an error of its parent's step."""

    def step(self, closure=None):
        def failing():
            raise ArithmeticError

        with contextlib.suppress(ArithmeticError):
            super().step(failing)
        return super().step(closure)


def test_an_inner_step_that_failed_does_not_switch_the_projection_off(model, train):
    torch.optim.SGD(model.parameters())
    optimizer = Retrying(model.parameters(), lr=1.0)
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(3))
    assert not ftp.updates and {state["steps"] for state in ftp.state_dict()["tensors"].values()} == {3}
    for name, distance in ftp.distances().items():
        assert distance.max() <= ftp.radii()[name] + 1e-6


@pytest.mark.parametrize("backend", available_backends())
def test_a_subclass_of_adamp_that_changes_weights_is_projected(model, backend):
    class DriftingAdamP(AdamP):
        def step(self, closure=None):
            loss = super().step(closure)
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    parameter.add_(0.5)
            return loss

    named = dict(model.named_parameters())
    AdamP([{"params": list(named.values()), "name": list(named)}], backend=backend)
    optimizer = DriftingAdamP([{"params": list(named.values()), "name": list(named)}], backend=backend)
    before = {name: weights.detach().clone() for name, weights in named.items()}
    for weights in named.values():
        weights.grad = torch.ones_like(weights)
    optimizer.step()
    assert max((named[name] - before[name]).abs().max() for name in named) < 1e-6


class WithoutHooks(torch.optim.Optimizer):
    """As wrappers are that leave out the base class's __init__."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def test_a_wrapper_without_hooks_is_refused_and_nothing_is_half_attached(model, optimizer, train):
    ftp = FTP(model).attach(optimizer)
    with pytest.raises(TypeError, match="torch gives it no hooks"):
        ftp.attach(WithoutHooks(optimizer))
    assert ftp.is_attached_to(optimizer)
    train(model, optimizer, range(2))
    assert ftp.radii()


def test_attaching_to_an_optimizer_with_a_state_says_where_the_anchor_is(model, train, caplog):
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, range(2))
    FTP(model, anchor=model.state_dict()).attach(optimizer).detach()
    assert not caplog.text
    ftp = FTP(model).attach(optimizer)
    assert caplog.text.count("attach before loading it") == 1
    ftp.restart()
    ftp.detach()
    ftp.attach(optimizer)
    assert caplog.text.count("attach before loading it") == 1


def test_a_learning_rate_scheduler_works_as_before(model, optimizer, train):
    ftp = FTP(model).attach(optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    train(model, optimizer, range(2))
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.025
    assert set(ftp.radii()) == {name for name, _ in model.named_parameters()}


def test_summary_describes_each_projected_tensor(model, optimizer, train):
    ftp = FTP(model, exclude="head").attach(optimizer)
    assert ftp.summary() == {}
    train(model, optimizer, range(5))
    table = ftp.summary()
    assert list(table) == ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    for name, row in table.items():
        assert row["radius"] == ftp.radii()[name]
        assert row["mean_distance"] <= row["max_distance"]
        assert 0 <= row["boundary_share"] <= 1
        assert ftp.distances()[name].shape == (4 if name == "conv.weight" else 1,)
        # Weights are rounded to float32 after the projection, once for each of a row's elements.
        assert row["max_distance"] <= row["radius"] + 1e-8 + 18 * 6e-8


def test_a_row_that_sets_the_radius_is_not_at_the_boundary(model, optimizer, train):
    # The first step sets all rows back; in the second the radii are far too large and clipped to the largest row.
    ftp = FTP(model, mu=100.0).attach(optimizer)
    train(model, optimizer, range(1))
    assert ftp.summary()["conv.weight"]["boundary_share"] == 1
    train(model, optimizer, range(1, 2))
    clipped = [row for row in ftp.summary().values() if row["radius"] > 1e-6]
    assert clipped and all(row["boundary_share"] == 0 for row in clipped)


def test_compiled_and_wrapped_models_share_names_with_the_plain_one(model):
    plain = FTP(model).projected_names()
    assert FTP(nn.DataParallel(model)).projected_names() == plain
    assert FTP(torch.compile(model)).projected_names() == plain
    assert "head.weight" not in FTP(nn.DataParallel(model), exclude="head").projected_names()
    assert "head.weight" not in FTP(torch.compile(model), exclude="module.head.weight").projected_names()
