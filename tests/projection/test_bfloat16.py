"""The compiled loops in bfloat16: weights, or the change alone."""

import math

import pytest
import torch
from torch import nn

from ftp_cl.optim import FTP, AdamP
from ftp_cl.projection import Storage, TensorState, available_backends
from ftp_cl.projection.radius import STEPS, VALUE

pytestmark = pytest.mark.skipif("numba" not in available_backends(), reason="numba is not installed")

SHAPES = [(50, 300), (40, 7), (900,), (64, 3, 3, 3), (3, 5000), ()]
CHANGE_ONLY = Storage(direction_dtype=torch.bfloat16)


@pytest.mark.parametrize("columns", [100, 1000])  # few elements, and lines past the cache
def test_a_change_is_rounded_as_torch_rounds(columns, take_step):
    """Ties go to even, and the smallest numbers do not vanish."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (40, columns), generator=generator, dtype=torch.int64).to(torch.int32)
    bits[::2] &= ~0xFFFF
    bits[::4] |= 0x8000  # halfway between two numbers
    weights = bits.view(torch.float32)
    weights[~(weights.abs() < 1e30)] = 1.0
    state = TensorState(torch.zeros_like(weights), like=weights, storage=CHANGE_ONLY)
    state.numbers[VALUE], state.numbers[STEPS] = math.inf, 1
    expected = weights.bfloat16()
    take_step("numba", [state], [weights], [torch.zeros_like(weights)])
    assert ((expected != 0) & (expected.abs() < 2.0**-126)).any(), (
        "numbers below the smallest normal one are among them"
    )
    torch.testing.assert_close(state.norms, weights.double().abs().sum(dim=1), rtol=1e-6, atol=1e-7)
    assert torch.equal(state.change, expected)


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001])
@pytest.mark.parametrize("place", [3, 200])
def test_no_number_stays_no_number(bits, place, take_step):
    weights = torch.ones(2, 300)
    weights.view(torch.int32)[1, place] = bits - (bits >> 31 << 32)  # as a number, it would become another NaN
    state = TensorState(torch.zeros_like(weights), like=weights, storage=CHANGE_ONLY)
    assert take_step("numba", [state], [weights], [torch.zeros_like(weights)]) == {"0": True}
    assert weights[1, place].isnan() and weights.isnan().sum() == 1
    assert (weights[0] == 0).sum() == 0 and (weights[0] < 1e-8).all(), "the other row is projected"
    assert state.change[0].all() and not state.change[1].any()


@pytest.mark.parametrize(("dtype", "storage"), [(torch.bfloat16, None), (torch.float32, CHANGE_ONLY)])
def test_plain_torch_is_not_needed(dtype, storage, monkeypatch, take_step):
    monkeypatch.setattr("ftp_cl.projection.backends.torch_backend.TorchBackend.layout", None)
    weights = [torch.ones(shape, dtype=dtype) for shape in SHAPES]
    states = [TensorState(0 * weight, like=weight, storage=storage) for weight in weights]
    take_step("numba", states, weights)
    assert [state.norms.max().item() for state in states] == pytest.approx([300, 7, 900, 27, 5000, 1], rel=1e-6)
    assert {state.change.dtype for state in states} == {torch.bfloat16}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_adam_fused_in_equals_torchs_fused_adam_to_the_last_bit(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator).bfloat16()
    gradients = [torch.randn(shape, generator=generator).bfloat16() for _ in range(12)]
    one, two = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    in_one_pass = AdamP([{"params": [one], "name": ["weight"]}], lr=0.05, weight_decay=0.01, backend="numba")
    in_two = torch.optim.AdamW([two], lr=0.05, weight_decay=0.01, fused=True)
    ftp = FTP([("weight", two)], backend="numba").attach(in_two)
    for gradient in gradients:
        one.grad, two.grad = gradient.clone(), gradient.clone()
        in_one_pass.step()
        in_two.step()
    assert in_one_pass.ftp.radii() == pytest.approx(ftp.radii(), rel=1e-6)
    assert torch.equal(one, two)
    for name, moment in in_one_pass.state[one].items():
        assert torch.equal(moment, in_two.state[two][name])
