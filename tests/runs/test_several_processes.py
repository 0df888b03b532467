"""Two processes that train together equal one, with the same batches; what they cannot do they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ftp_cl.runs.config import load_config
from ftp_cl.runs.group import METHODS
from ftp_cl.runs.run import run

SHORT = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "train.epochs=1"),
    *("train.batch_size=61", "threads=1", "save_weights=true", "optimizer.name=sgd", "optimizer.lr=0.02"),
]
ROOT = Path(__file__).parents[2]


def started(directory: Path, *overrides: str, **options) -> subprocess.Popen:
    """Two processes, as a user starts them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ftp_cl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "run", *SHORT, *overrides, f"out={directory}"]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def assert_the_same(two: Path, one: Path) -> None:
    """But for the rounding of sums that are added up in another order."""
    expected, found = (load_file(path / "weights.safetensors") for path in (one, two))
    for name, value in expected.items():
        change = found[name].double() - value.double()
        assert change.norm() <= 1e-5 * value.double().norm(), name
    results = [json.loads((path / "result.json").read_text()) for path in (one, two)]
    assert [r["environment"]["processes"] for r in results] == [1, 2]
    for key in ("accuracy_matrix", "ood", "pseudo_labels", "classes_per_experience"):
        assert results[0][key] == results[1][key], key
    events = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (one, two)]
    assert [e["event"] for e in events[0]] == [e["event"] for e in events[1]]
    losses = [[event["loss"] for event in of if event["event"] == "train"] for of in events]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


OPTIONS = {"fixmatch": ["labels.per_class=20", "method.ratio=1"], "ewc": ["method.ewc_lambda=10"]}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ftp", *METHODS])
def test_two_processes_equal_one(tmp_path, method):
    options = [f"method={method}", *OPTIONS.get(method, [])]
    process = started(tmp_path / "two", *options)
    run(load_config([*SHORT, *options]), tmp_path / "one")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_the_same(tmp_path / "two", tmp_path / "one")
    assert output.count("on what was seen") == 2  # the first process prints
