"""Training that is interrupted and resumed ends where uninterrupted training ends."""

import copy
import io
import warnings

import bitsandbytes
import pytest
import torch

from ftp_cl.optim import FTP, SGDP, AdamP

# Muon takes 2-d parameters only and SparseAdam sparse gradients only.
BASE_OPTIMIZERS = [
    kind
    for name, kind in sorted(vars(torch.optim).items())
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "Muon", "SparseAdam")
]


def base_optimizer(kind, model):
    options = {"max_iter": 3} if kind is torch.optim.LBFGS else {}
    return kind(model.parameters(), lr=1e-2, **options)


def through_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", BASE_OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_resumed_training_equals_uninterrupted_training(make_model, train, assert_same_weights, kind):
    model = make_model()
    optimizer = base_optimizer(kind, model)
    ftp = FTP(model, exclude="head").attach(optimizer)
    train(model, optimizer, range(20))
    saved = through_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    train(model, optimizer, range(20, 40))

    clone = make_model()
    clone_optimizer = base_optimizer(kind, clone)
    clone_ftp = FTP(clone, exclude="head").attach(clone_optimizer)
    clone.load_state_dict(saved["model"])
    clone_optimizer.load_state_dict(saved["optimizer"])
    train(clone, clone_optimizer, range(20, 40))

    assert_same_weights(model, clone)
    assert ftp.radii() == clone_ftp.radii()
    assert set(ftp.radii()) == {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "scale"}


@pytest.mark.parametrize("kind", [AdamP, SGDP], ids=lambda kind: kind.__name__)
def test_resumed_drop_in_training_equals_uninterrupted_training(make_model, train, assert_same_weights, kind):
    def drop_in(model):
        names, parameters = zip(*model.named_parameters(), strict=True)
        return kind([{"params": parameters, "name": names}], lr=1e-2, exclude_set={"head.*"})

    model = make_model()
    optimizer = drop_in(model)
    train(model, optimizer, range(20))
    saved = through_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    train(model, optimizer, range(20, 40))

    clone = make_model()
    clone_optimizer = drop_in(clone)
    clone.load_state_dict(saved["model"])
    clone_optimizer.load_state_dict(saved["optimizer"])
    train(clone, clone_optimizer, range(20, 40))
    assert_same_weights(model, clone)


def test_own_state_dict_resumes_with_an_optimizer_that_knows_nothing_of_it(make_model, train, assert_same_weights):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ftp = FTP(model, exclude="head").attach(optimizer)
    train(model, optimizer, range(10))
    weights, saved = through_file(model.state_dict()), through_file(ftp.state_dict())
    train(model, optimizer, range(10, 20))

    clone = make_model()
    clone.load_state_dict(weights)
    clone_optimizer = torch.optim.SGD(clone.parameters(), lr=0.05)
    clone_ftp = FTP(clone, exclude="head").attach(clone_optimizer)
    clone_ftp.load_state_dict(saved)
    train(clone, clone_optimizer, range(10, 20))
    assert_same_weights(model, clone)


def test_a_loaded_state_is_a_copy(make_model, train):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(2))
    saved = ftp.state_dict()
    before = saved["tensors"]["conv.weight"]["change"].clone()
    other = FTP(make_model())
    other.load_state_dict(saved)
    saved["tensors"]["conv.weight"]["change"].zero_()
    assert torch.equal(other.state_dict()["tensors"]["conv.weight"]["change"], before)


def test_loading_a_state_without_ftp_keeps_its_own_and_says_so(make_model, train, caplog):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    plain_state = optimizer.state_dict()
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(3))
    radii = ftp.radii()
    optimizer.load_state_dict(plain_state)
    assert ftp.radii() == radii
    assert "none of FTP's" in caplog.text


def test_tensors_without_a_partner_in_the_loaded_state_are_named(make_model, train, caplog):
    ftp = FTP(make_model(), exclude=["norm", "conv"])
    ftp.load_state_dict(FTP(make_model()).state_dict())
    assert not caplog.text  # an empty state is nobody's
    model = make_model()
    other = FTP([(name.replace("scale", "factor"), p) for name, p in model.named_parameters()], exclude="head.bias")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    other.attach(optimizer)
    train(model, optimizer, range(2))
    ftp.load_state_dict(other.state_dict())
    assert "Only the state has, for later: factor." in caplog.text
    assert "Only the model has, with new anchors and radii: scale, head.bias." in caplog.text


def wrapped(name):
    """As with compiled blocks that are wrapped for activation checkpointing, in FSDP's way, below peft and DDP."""
    module, _, last = name.rpartition(".")
    inside = f"{module}._checkpoint_wrapped_module._orig_mod.base_layer.{last}" if module else last
    return f"module.base_model.model._fsdp_wrapped_module.{inside}"


def test_wrapped_modules_resume_with_the_state_of_plain_ones_and_the_other_way_round(make_model, train, caplog):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(5))
    saved = ftp.state_dict()
    again = FTP([(wrapped(name), p) for name, p in make_model().named_parameters()], exclude="head")
    again.load_state_dict(saved)
    assert again.radii() == {name: radius for name, radius in ftp.radii().items() if "head" not in name}
    tensors = {wrapped(name): tensor for name, tensor in saved["tensors"].items()}
    plain = FTP(make_model())
    plain.load_state_dict({"version": 1, "tensors": tensors})
    assert plain.radii() == ftp.radii() and not caplog.text


@pytest.mark.parametrize("with_ftp", [False, True])
def test_a_free_group_stays_free_after_loading_a_state_that_says_nothing_of_it(make_model, train, with_ftp):
    def prepare(model, **told):
        head = {*model.head.parameters()}
        groups = [{"params": [p for p in model.parameters() if p not in head]}, {"params": list(head), **told}]
        return torch.optim.SGD(groups, lr=0.05)

    before = prepare(make_model())
    if with_ftp:
        FTP(make_model()).attach(before)
    saved, model = before.state_dict(), make_model()
    optimizer = prepare(model, ftp=False, ftp_k=0.5)
    ftp = FTP(model).attach(optimizer)
    optimizer.load_state_dict(saved)
    train(model, optimizer, range(2))
    assert {name.split(".")[0] for name in ftp.radii()} == {"scale", "conv", "norm"}
    assert optimizer.param_groups[1]["ftp_k"] == 0.5 and "ftp" not in saved["param_groups"][1]


class WithoutHooks(torch.optim.AdamW):
    """Loads in its own way, as bitsandbytes' optimizers do."""

    def load_state_dict(self, state_dict):
        groups = copy.deepcopy(state_dict["param_groups"])
        parameters = [p for group in self.param_groups for p in group["params"]]
        for own, saved in zip(self.param_groups, groups, strict=True):
            own.update({key: value for key, value in saved.items() if key != "params"})
        states = copy.deepcopy(state_dict["state"])
        self.state.update({parameter: states[index] for index, parameter in enumerate(parameters)})


class WithHooks(torch.optim.AdamW):
    """Does something of its own, and lets torch load."""

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict})


@pytest.mark.parametrize("kind", [WithoutHooks, WithHooks, bitsandbytes.optim.AdamW8bit])
def test_optimizers_that_load_in_their_own_way_bring_the_state_back(make_model, train, kind, caplog):
    model, again = make_model(), make_model()
    optimizer, resumed = (kind(each.parameters(), lr=0.05) for each in (model, again))
    ftp = FTP(model).attach(optimizer)
    train(model, optimizer, range(4))
    loaded = FTP(again).attach(resumed)
    again.load_state_dict(model.state_dict())
    saved = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match="no state dict of FTP"):
        resumed.load_state_dict({**saved, "ftp": 3})
    assert not resumed.state, "what is refused changes nothing"
    resumed.load_state_dict(state_dict=saved)
    assert loaded.radii() == ftp.radii() and not caplog.text
    train(model, optimizer, range(4, 8)), train(again, resumed, range(4, 8))
    assert loaded.radii() == ftp.radii() and max(ftp.radii().values()) > 1e-3
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    loaded.detach()
    resumed.load_state_dict(saved)
    assert loaded.radii() == ftp.radii(), "a detached one is as it was"


class Nested(torch.optim.AdamW):
    """Keeps another one's state dict within its own, as SAM may."""

    def state_dict(self):
        return {"own": 1, "base": super().state_dict()}

    def load_state_dict(self, nested, strict=True):
        super().load_state_dict(nested["base"])


def test_a_state_that_an_optimizer_keeps_deeper_comes_back(make_model, train, caplog):
    model, again = make_model(), make_model()
    optimizer, resumed = (Nested(each.parameters(), lr=0.05) for each in (model, again))
    ftp, loaded = FTP(model).attach(optimizer), FTP(again).attach(resumed)
    train(model, optimizer, range(4))
    for load in (resumed.load_state_dict, lambda state, strict: Nested.load_state_dict(resumed, state, strict)):
        loaded.load_state_dict({"version": 1, "tensors": {}})
        load(copy.deepcopy(optimizer.state_dict()), False)
        assert loaded.radii() == ftp.radii() and not caplog.text
    plain = torch.optim.AdamW(make_model().parameters(), lr=0.05)
    resumed.load_state_dict(nested={"own": 1, "base": plain.state_dict()})
    assert caplog.text.count("holds none of FTP's") == 1


class Flat(torch.optim.SGD):
    """Saves and loads in a form of its own."""

    def state_dict(self):
        return {"state": {0: torch.ones(2)}, "param_groups": {"lr": 0.5}}

    def load_state_dict(self, state_dict):
        self.param_groups[0]["lr"] = state_dict["param_groups"]["lr"]


def test_a_state_in_another_form_than_torch_s_is_the_optimizer_s_own_matter(make_model, caplog):
    model = make_model()
    optimizer = Flat(model.parameters(), lr=0.1)
    FTP(model).attach(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert caplog.text.count("holds none of FTP's") == 1, "FTP's state was not saved with it"


def test_a_way_to_load_that_somebody_has_set_is_kept(make_model):
    model, called = make_model(), []
    optimizer = torch.optim.AdamW(model.parameters())

    def load(state_dict):
        called.append(state_dict)

    optimizer.load_state_dict = load
    ftp = FTP(model).attach(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert called and "ftp" not in called[0]
    ftp.detach()
    assert optimizer.load_state_dict is load
    ftp.attach(optimizer)
    del optimizer.load_state_dict
    ftp.detach()
    assert "load_state_dict" not in vars(optimizer)


def test_a_state_with_ftp_loads_into_an_optimizer_without(make_model, train):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    FTP(model).attach(optimizer)
    train(model, optimizer, range(3))
    plain = torch.optim.SGD(make_model().parameters(), lr=0.1)
    plain.load_state_dict(optimizer.state_dict())
    assert plain.param_groups[0]["lr"] == 0.05


def test_a_state_of_another_shape_is_refused_and_changes_nothing(make_model, train):
    wide, narrow = make_model(classes=5), make_model(classes=3)
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.05)
    ftp = FTP(wide).attach(optimizer)
    train(wide, optimizer, range(2))
    target = FTP(narrow)
    with pytest.raises(ValueError, match=r"'head.weight' has shape \(5, 4\), the model's tensor \(3, 4\)"):
        target.load_state_dict(ftp.state_dict())
    assert target.state_dict()["tensors"] == {}


@pytest.mark.parametrize("wrong", [{}, {"version": 2, "tensors": {}}, {"version": 1}, 3])
def test_what_is_no_state_of_ftp_is_refused(make_model, wrong):
    with pytest.raises(ValueError, match="no state dict of FTP"):
        FTP(make_model()).load_state_dict(wrong)


def test_nothing_here_warns(make_model, train):
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    ftp = FTP(model).attach(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, range(3))
        ftp.summary(), ftp.distances(), optimizer.state_dict()
