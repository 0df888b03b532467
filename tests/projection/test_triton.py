"""Triton's kernels on a machine without a GPU: they compile for one, and do the right thing in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ftp_cl.projection import Storage, TensorState, Update, available_backends, get_backends
from ftp_cl.projection.backends.plan import plan_of

triton = pytest.importorskip("triton", reason="triton is not installed")
triton_backend = pytest.importorskip("ftp_cl.projection.backends.triton_backend")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreter already")


@pytest.mark.slow
def test_the_tests_of_backends_pass_in_the_interpreter():
    tests = Path(__file__).with_name("test_backends.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", str(tests)]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = 12 if "numba" in available_backends() else 10  # two exchange states with it
    assert f"{passed} passed" in done.stdout  # and were not skipped


WIDE, NARROW, PIECE = (1, triton_backend.WIDEST_ROW), (128, 16), (1, triton_backend.PIECE)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("kernel", "weights", "anchor", "change", "tile", "settings"),
    [
        ("vote", "float32", "float32", "float32", NARROW, {"WHOLE": True, "ONE_PASS": False, "EXACT": True}),
        ("vote", "float32", "float32", None, PIECE, {"WHOLE": False, "ONE_PASS": True, "EXACT": False}),
        ("step", "float32", "float32", "float32", NARROW, {"ONE_PASS": False, "ADAM": False}),
        ("step", "float32", "float32", "bfloat16", WIDE, {"ONE_PASS": False, "ADAM": True}),
        ("step", "float32", "bfloat16", None, WIDE, {"ONE_PASS": True, "ADAM": True}),
        ("step", "float64", "float64", None, NARROW, {"ONE_PASS": True, "ADAM": True}),
        ("step", "bfloat16", "bfloat16", "bfloat16", NARROW, {"ONE_PASS": False, "ADAM": True}),
        ("step", "float16", "float16", "float16", NARROW, {"ONE_PASS": False, "ADAM": False}),
        ("measure", "float32", "float32", None, PIECE, {"ONE_PASS": True, "ADAM": True}),
        ("place", "float32", "float32", "float32", PIECE, {"ONE_PASS": False}),
        ("place", "float32", "float32", None, PIECE, {"ONE_PASS": True}),
        ("start", None, None, None, NARROW, {}),
        ("finish", None, None, None, NARROW, {"ONE_PASS": False, "ADAM": True}),
        ("finish", None, None, None, NARROW, {"ONE_PASS": True, "ADAM": False}),
    ],
)
def test_kernels_compile_for_a_gpu(
    kernel, weights, anchor, change, tile, settings, architecture, monkeypatch, tmp_path
):
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ftp_cl.projection.backends import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # compile it now
    function = getattr(triton_kernels, kernel)
    types = {"table": "*i64", "owners": "*i32", "firsts": "*i32", "spans": "*i32", "programs": "i32", "skipped": "*i1"}
    types |= {"left_out": "*fp32", "scale": "*fp32", **dict.fromkeys(("hyper", "measures", "results"), "*fp64")}
    kinds = [kind and getattr(tl, kind) for kind in (weights, anchor, change)]
    sums = tl.float64 if weights == "float64" else tl.float32
    names = "W", "A", "C", "SUMS", "ROWS", "COLS", "AT_ONCE"
    constants = dict(zip(names, (*kinds, sums, *tile, triton_backend.AT_ONCE), strict=True))
    constants = {name: value for name, value in {**constants, **settings}.items() if name in function.arg_names}
    source = ASTSource(
        fn=function, signature={name: types.get(name, "constexpr") for name in function.arg_names}, constexprs=constants
    )
    warps = max(4, tile[0] * tile[1] // 512)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps})
    (tmp_path / "cubin").write_bytes(compiled.asm["cubin"])
    shown = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", tmp_path / "cubin"]
    usage = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    if kernel in ("step", "measure") and weights == "float32":
        assert "STACK:0 " in usage, f"numbers do not fit in registers: {usage}"


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"backend='triton' needs a GPU; available are 'auto', .*'torch'\."):
        get_backends("triton")


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"backend='triton' is not installed: the package triton comes with torch"):
        get_backends("triton")


def test_numbers_that_a_captured_graph_reads_are_not_overwritten(monkeypatch):
    """What has changed since the steps outside is held by the graph's kernels, and the rest stays where it is."""
    first, second, third = np.array([[1, 2], [3, 4]]), np.array([[1, 5], [3, 2**47 + 1]]), np.zeros((2, 2), dtype=int)
    numbers = triton_backend._Numbers(first, torch.device("cpu"))
    monkeypatch.setattr(triton_backend, "is_captured", lambda device: True)
    unchanged, held = numbers.here(first.copy()), numbers.here(second)
    monkeypatch.undo()
    assert unchanged.tolist() == first.tolist() and held.tolist() == second.tolist()
    assert numbers.here(third).tolist() == third.tolist()
    assert unchanged.tolist() == first.tolist() and held.tolist() == second.tolist()
    assert numbers.captured[1] is unchanged, "kept alive"


def test_layouts_do_not_drive_each_other_out_and_the_least_recently_used_set_of_one_is_forgotten():
    def update(**storage):
        state = TensorState(torch.ones(2, 3), torch.ones(2, 3), Storage(**storage))
        plan_of(state)
        return Update("", torch.ones(2, 3), torch.ones(2, 3), state, {})

    backend, kinds = triton_backend.TritonBackend(), [torch.float64, torch.float32, torch.bfloat16]
    layouts = [update(anchor_dtype=one, direction_dtype=other) for one in kinds for other in kinds]
    first = [backend._table_of([each]) for each in layouts]
    assert [backend._table_of([each]) for each in layouts] == first
    alike = [update() for _ in range(triton_backend.TABLES + 1)]
    kept, forgotten, *_ = [backend._table_of([each]) for each in alike[:-1]]
    assert backend._table_of(alike[:1]) is kept
    backend._table_of(alike[-1:])
    assert backend._table_of(alike[:1]) is kept and backend._table_of(alike[1:2]) is not forgotten


@pytest.mark.slow
def test_the_trial_does_not_depend_on_torch_s_default_dtype():
    code = (
        "import torch; torch.set_default_dtype(torch.bfloat16)\n"
        "from ftp_cl.projection.backends import trial, triton_backend\n"
        "assert trial.works(triton_backend.TritonBackend, torch.device('cpu'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
