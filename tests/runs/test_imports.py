"""A command imports without collections of garbage, then and later; where PyTorch is there, nothing changes."""

import gc
import subprocess
import sys

import pytest

from ftp_cl.runs.imports import without_collections


@pytest.fixture
def frozen(monkeypatch):
    """How often everything was taken from the collector; this process keeps its own."""
    calls = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    return calls


def test_a_first_import_is_without_collections_and_what_it_brings_stays_out_of_them(monkeypatch, frozen):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ImportError), without_collections():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and frozen == [False]


def test_garbage_of_a_process_that_has_torch_is_still_collected(monkeypatch, frozen):
    monkeypatch.setitem(sys.modules, "torch", sys)
    with without_collections():
        assert gc.isenabled()
    assert not frozen


def test_who_has_switched_collections_off_keeps_them_off(monkeypatch, frozen):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    gc.disable()
    try:
        with without_collections():
            assert not gc.isenabled()
        assert not gc.isenabled() and not frozen
    finally:
        gc.enable()


def test_what_imports_so_has_not_imported_torch_before():
    modules = "ftp_cl.cli, ftp_cl.runs.sweep, ftp_cl.study.compare, ftp_cl.study.demo"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; assert 'torch' not in sys.modules"], check=True)
