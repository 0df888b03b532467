"""What checkpoints hold comes back through a file as it was: values, their types, and the memory order of tensors."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.training.utils import ParamData
from torch import nn

from ftp_cl.runs.checkpoint_files import from_bytes, to_bytes
from ftp_cl.runs.packing import KIND, BenchmarkItems, CannotSave, Packing

PACKING = Packing(BenchmarkItems([]))


def through_a_file(value, existing=None):
    return PACKING.unpack(from_bytes(to_bytes(PACKING.pack(value, "x"))), existing)


def test_plain_values_and_containers_come_back_with_their_types():
    value = {"n": [1, -5, 2.5, float("inf"), "x", None, True, 10**60], (1, "b"): (1, (2, {3})), 4: {}, "e": set()}
    assert repr(through_a_file(value)) == repr(value)
    assert through_a_file({np.int64(3): frozenset([np.int64(2)])}) == {3: {2}}


def test_tensors_of_a_gpu_come_back_on_the_device_of_the_run(monkeypatch):
    state = {"weights": torch.rand(3), "device": torch.device("cuda:0")}
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        content = to_bytes(PACKING.pack(state, "x"))
    back = from_bytes(content, torch.device("cpu"))
    assert torch.equal(back["weights"], state["weights"]) and back["weights"].device.type == "cpu"
    assert from_bytes(content, torch.device("meta"))["weights"].is_meta
    assert not from_bytes(to_bytes(state), torch.device("meta"))["weights"].is_meta  # what was on a CPU stays there
    assert PACKING.unpack(back, None, SimpleNamespace(device=torch.device("cuda:1")))["device"].index == 1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.rand(3, 5).T,
        torch.arange(5),
        torch.ones(2, dtype=torch.bfloat16, requires_grad=True),
        nn.Parameter(torch.ones(3), requires_grad=False),
    ],
    ids=["channels last", "transposed", "integers", "bfloat16 with gradient", "frozen parameter"],
)
def test_tensors_come_back_with_strides_kind_and_gradient(tensor):
    back = through_a_file([tensor])[0]
    assert torch.equal(back, tensor) and back.dtype == tensor.dtype and back.stride() == tensor.stride()
    assert type(back) is type(tensor) and back.requires_grad == tensor.requires_grad


def test_a_view_is_written_without_the_memory_behind_it():
    assert len(to_bytes(PACKING.pack(torch.zeros(10**6)[:3], "x"))) < 10**4


def test_objects_are_brought_back_in_place_or_made_anew():
    array = through_a_file(np.arange(6, dtype=np.uint32).reshape(2, 3))
    assert array.dtype == np.uint32 and array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert type(through_a_file(np.float32(0.1))) is np.float32
    counts = defaultdict(list)
    assert through_a_file({1: [2]}, counts) is counts and counts[1] == [2] and counts[7] == []
    generator, other = torch.Generator().manual_seed(4), torch.Generator()
    through_a_file(generator, other)
    assert torch.equal(torch.rand(3, generator=other), torch.rand(3, generator=generator))
    importance = through_a_file(ParamData("w", init_tensor=torch.arange(6.0).reshape(2, 3)))
    importance.expand((4, 3))
    assert importance.name == "w" and importance.data.sum() == 15 and importance.shape == (4, 3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": iter([])}, "x.a is a list_iterator"),
        ({object(): 1}, "as a key"),
        ({KIND: "array"}, "as a key"),
        ({print}, "in a set"),
        ([torch.eye(2).to_sparse()], "x.0 is a tensor of a kind"),
    ],
    ids=["iterator", "object as key", "our own key", "function in a set", "sparse"],
)
def test_what_has_no_form_is_named(value, told):
    with pytest.raises(CannotSave, match=told):
        PACKING.pack(value, "x")
    endless = []
    endless.append(endless)
    with pytest.raises(CannotSave, match="contains itself"):
        PACKING.pack(endless, "x")
