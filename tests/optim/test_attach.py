"""Attaching FTP to an optimizer and detaching it."""

import gc
import weakref

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP


def hooks(optimizer):
    return {name: dict(value) for name, value in vars(optimizer).items() if name.endswith("_hooks")}


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


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
        ({"mu": 0.0}, "no step size"),
        ({"method": "other"}, "unknown"),
    ],
)
def test_wrong_settings_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        FTP(model, **options)


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


def test_compiled_and_wrapped_models_share_names_with_the_plain_one(model):
    plain = FTP(model).projected_names()
    assert FTP(nn.DataParallel(model)).projected_names() == plain
    assert FTP(torch.compile(model)).projected_names() == plain
    assert "head.weight" not in FTP(nn.DataParallel(model), exclude="head").projected_names()
    assert "head.weight" not in FTP(torch.compile(model), exclude="module.head.weight").projected_names()
