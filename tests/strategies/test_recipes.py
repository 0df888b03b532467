"""The recipes run as they stand, as a user would start them."""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

STRATEGIES = Path(__file__).parents[2] / "strategies"


@pytest.fixture
def all_cores():
    """As a script has them; other tests keep to one."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


FEWER = {"segmentation_ftp": ["--scenes", "16"]}
SCRIPTS = sorted(STRATEGIES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [*((script, FEWER.get(script.stem, [])) for script in SCRIPTS), (STRATEGIES / "ftp_naive.py", ["--ensemble"])],
    ids=lambda value: value.stem if isinstance(value, Path) else "".join(value),
)
def test_recipe_trains_and_prints_every_stream(script, options, tmp_path, monkeypatch, capsys, all_cores):
    """In this process, which has loaded torch and Avalanche already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--epochs", "1", *options])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    streams = [line.split()[0] for line in printed.splitlines() if line.endswith(" %")]
    assert streams[0] == "test" and len(streams) == 7


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_recipe_is_short(script):
    assert len(script.read_text().splitlines()) < 80
