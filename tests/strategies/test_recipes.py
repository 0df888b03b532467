"""The recipes run as they stand, as a user would start them."""

import subprocess
import sys
from pathlib import Path

import pytest

STRATEGIES = Path(__file__).parents[2] / "strategies"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(STRATEGIES.glob("*.py")), ids=lambda path: path.stem)
def test_recipe_trains_and_prints_every_stream(script, tmp_path):
    run = subprocess.run(
        [sys.executable, str(script), "--epochs", "1"], capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    assert run.returncode == 0, run.stderr
    streams = [line.split()[0] for line in run.stdout.splitlines() if line.endswith(" %")]
    assert streams[0] == "test" and len(streams) == 7


@pytest.mark.parametrize("script", sorted(STRATEGIES.glob("*.py")), ids=lambda path: path.stem)
def test_recipe_is_short(script):
    assert len(script.read_text().splitlines()) < 80
