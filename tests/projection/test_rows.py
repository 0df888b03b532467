"""Rows are the slices along dimension 0, whatever the memory layout; one dimension or none is one single row."""

import pytest
import torch

from ftp_cl.projection.rows import as_rows, empty_like_rows, has_dense_rows, row_norms, sent

LAYOUTS = {
    "0-d": lambda: torch.randn(()),
    "1-d": lambda: torch.randn(5),
    "2-d": lambda: torch.randn(3, 4),
    "5-d": lambda: torch.randn(3, 2, 2, 3, 2),
    "one row": lambda: torch.randn(1, 7),
    "one element a row": lambda: torch.randn(6, 1),
    "channels_last": lambda: torch.randn(3, 2, 4, 5).to(memory_format=torch.channels_last),
    "channels_last, one channel": lambda: torch.randn(3, 1, 4, 5).to(memory_format=torch.channels_last),
    "permuted within rows": lambda: torch.randn(3, 4, 2).transpose(1, 2),
    "rows of a larger tensor": lambda: torch.randn(6, 4)[:3],
}
STRIDED = {
    "transposed": lambda: torch.randn(4, 3).t(),
    "every second column": lambda: torch.randn(3, 8)[:, ::2],
    "every second element": lambda: torch.randn(10)[::2],
    "expanded": lambda: torch.randn(3, 1).expand(3, 4),
}


def literal_norms(tensor):
    rows = list(tensor) if tensor.dim() > 1 else [tensor]
    return torch.stack([row.abs().sum() + 1e-8 for row in rows])


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_share_memory_and_hold_the_slices(make):
    tensor = make()
    rows = as_rows(tensor)
    assert rows.data_ptr() == tensor.data_ptr()
    for row, slice_ in zip(rows, tensor if tensor.dim() > 1 else [tensor], strict=True):
        assert sorted(row.tolist()) == sorted(slice_.flatten().tolist())


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED)
def test_rows_with_gaps_are_refused(make):
    tensor = make()
    assert not has_dense_rows(tensor)
    with pytest.raises(ValueError, match="are not dense"):
        as_rows(tensor)


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_norms_are_l1_plus_epsilon(make):
    tensor = make()
    torch.testing.assert_close(row_norms(tensor), literal_norms(tensor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_of_half_precision_are_summed_in_float32(dtype):
    tensor = torch.full((1, 4096), 0.1).to(dtype)
    expected = tensor.double().abs().sum().item()
    assert row_norms(tensor).dtype == torch.float32
    assert row_norms(tensor).item() == pytest.approx(expected, rel=1e-6)


def test_an_unchanged_row_has_a_norm_above_zero():
    assert torch.equal(row_norms(torch.zeros(2, 3)), torch.full((2,), 1e-8))


@pytest.mark.parametrize("make", [*LAYOUTS.values(), *STRIDED.values()], ids=[*LAYOUTS, *STRIDED])
def test_state_tensors_have_dense_rows_in_the_strides_of_the_weights(make):
    tensor = make()
    new = empty_like_rows(tensor)
    assert new.shape == tensor.shape and has_dense_rows(new)
    if has_dense_rows(tensor):
        # The stride of a dimension of size 1 means nothing.
        assert [s for s, n in zip(new.stride(), new.shape, strict=True) if n > 1] == [
            s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1
        ]


def test_what_is_sent_once_is_refused_in_the_capture_of_a_graph(monkeypatch):
    """Each replay would fetch it again, from memory of the host that holds something else by then."""
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="first step with these tensors is in the capture of a CUDA graph: take a"):
        sent(torch.zeros(2), torch.device("cuda"))
    assert sent(torch.zeros(2), torch.device("cpu")).tolist() == [0, 0], "a CPU captures nothing"
