"""A compiled backend is used on a device only if it does there what plain torch does."""

import re

import pytest
import torch

from ftp_cl.projection import available_backends
from ftp_cl.projection.backends.torch_backend import TorchBackend
from ftp_cl.projection.backends.trial import works

CPU = torch.device("cpu")


class OffBackend(TorchBackend):
    name = "off"

    def project(self, updates, votes, rule, scaler):
        skipped = super().project(updates, votes, rule, scaler)
        for update in updates:
            if update.name == "(1, 9000)":
                update.weights[0, 8_999] *= 1.01
        return skipped


class FailingBackend(TorchBackend):
    name = "failing"

    def vote(self, updates, rule):
        raise RuntimeError("no kernel image is available\nfor this device")


class AdamOffBackend(TorchBackend):
    """Takes Adam's update without the decay, and is right otherwise."""

    name = "adam_off"

    def adam(self, updates, columns, hyper, rule):
        for update in updates:
            update.weights -= 0.01 * update.gradient


@pytest.mark.skipif("numba" not in available_backends(), reason="numba is not installed")
def test_a_backend_that_is_right_passes(caplog):
    from ftp_cl.projection.backends.numba_backend import NumbaBackend

    assert works(NumbaBackend, CPU) and not caplog.text


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (OffBackend, r"off .* on cpu \(paper, \(1, 9000\): off by 0\.0"),
        (AdamOffBackend, r"adam_off .* on cpu \(paper, with Adam, \(40, 3, 3\): off by"),
        (FailingBackend, r"failing .* on cpu \(RuntimeError: no kernel image is available\): plain torch does\."),
    ],
)
def test_one_that_is_wrong_or_fails_is_told_once_and_not_used(kind, what, caplog):
    assert not works(kind, CPU) and not works(kind, CPU)
    assert len(caplog.records) == 1
    assert re.search(what, caplog.text)


def test_a_trial_that_cannot_be_made_now_is_made_later(monkeypatch, caplog):
    class FullBackend(TorchBackend):
        name = "full"

        def vote(self, updates, rule):
            raise torch.OutOfMemoryError("full")

    monkeypatch.setattr("ftp_cl.projection.rows.is_captured", lambda device: True)
    with pytest.raises(RuntimeError, match="take a step outside before"):
        works(FullBackend, CPU)
    monkeypatch.undo()
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        works(FullBackend, CPU)
    del FullBackend.vote
    assert works(FullBackend, CPU) and not caplog.text


def test_triton_takes_nothing_on_a_device_where_it_failed(monkeypatch):
    triton_backend = pytest.importorskip("ftp_cl.projection.backends.triton_backend", reason="triton is not installed")
    layout = torch.device("cuda", 0), torch.float32, torch.float32, None
    for passes in (True, False):
        monkeypatch.setattr(triton_backend, "works", lambda kind, device, passes=passes: passes)
        assert triton_backend._takes.__wrapped__(layout) is passes
