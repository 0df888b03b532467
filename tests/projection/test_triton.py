"""Triton's kernels on a machine without a GPU: they compile for one, and do the right thing in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftp_cl.projection import available_backends, get_backend

triton = pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this is the interpreter already")


@pytest.mark.slow
def test_the_tests_of_backends_pass_in_the_interpreter():
    tests = Path(__file__).with_name("test_backends.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", str(tests)]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    passed = 7 if "numba" in available_backends() else 5  # two exchange states with it
    assert f"{passed} passed" in done.stdout  # and were not skipped


@pytest.mark.parametrize("kernel", ["vote_rows", "project_rows"])
@pytest.mark.parametrize(
    ("weights", "change", "sums", "architecture"),
    [
        ("float32", "float32", "float32", 75),
        ("float64", "float64", "float64", 80),
        ("float32", "bfloat16", "float32", 80),
        ("bfloat16", "bfloat16", "float32", 90),
        ("float16", "float16", "float32", 90),
    ],
)
def test_kernels_compile_for_a_gpu(kernel, weights, change, sums, architecture, monkeypatch, tmp_path):
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ftp_cl.projection import triton_kernels
    from ftp_cl.projection.triton_backend import BLOCK

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # compile it now
    function = getattr(triton_kernels, kernel)
    types = {"table": "*i64", "owners": "*i32", "numbers": "*i32", "votes": "*fp64", "norms": "*fp64"}
    constants = {
        "kind": getattr(tl, weights),
        "change_kind": getattr(tl, change),
        "sums": getattr(tl, sums),
        "block": BLOCK,
    }
    source = ASTSource(
        fn=function, signature={name: types.get(name, "constexpr") for name in function.arg_names}, constexprs=constants
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    assert compiled.asm["cubin"]


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"backend='triton' needs a GPU; available are 'auto', .*'torch'\."):
        get_backend("triton")


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"backend='triton' is not installed: the package triton comes with torch"):
        get_backend("triton")
