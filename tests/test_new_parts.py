"""One Python file and one YAML file are a new method, benchmark or model, one file a backend: all commands know it."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
QUICK = ["train.epochs=1", "train.batch_size=64", "threads=1"]
DIGITS = ["benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn"]

METHOD = """
from avalanche.core import SupervisedPlugin

class Shrink(SupervisedPlugin):
    def __init__(self, strength, most=None):
        super().__init__()
        self.strength, self.most, self.steps = strength, most, 0

    def before_backward(self, strategy, **kwargs):
        self.steps += 1
        norm = sum((weight**2).sum() for weight in strategy.model.parameters())
        strategy.loss = strategy.loss + self.strength / self.steps * norm
"""
BENCHMARK = """
from ftp_cl.benchmarks import split_digits

def two_digits(n_experiences, seed=0):
    return split_digits(n_experiences, seed=seed, shots=20)
"""
MODEL = """
from ftp_cl.models import small_cnn

def tiny(width, head="cosine"):
    return small_cnn(width=width, head=head)
"""
BACKEND = """
from ftp_cl.projection.backends.torch_backend import TorchBackend

class SlowBackend(TorchBackend):
    name = "slow"

    def project(self, updates, votes, rule, scaler):
        with open("slow_steps", "a") as file:
            file.write(".")
        return super().project(updates, votes, rule, scaler)
"""
FILES = {
    "projection/backends/slow_backend.py": BACKEND,
    "plugins/shrink.py": METHOD,
    "benchmarks/two_digits.py": BENCHMARK,
    "models/tiny.py": MODEL,
    "configs/method/shrink.yaml": "description: Weights shrink.\n_target_: ftp_cl.plugins.shrink.Shrink\n"
    "name: shrink\nstrength: 1e-3\nmost: null\n",
    "configs/benchmark/two_digits.yaml": "description: Few digits.\n_target_: ftp_cl.benchmarks.two_digits.two_digits\n"
    "name: two_digits\nn_experiences: 2\n",
    "configs/model/tiny.yaml": "description: Tiny.\n_target_: ftp_cl.models.tiny.tiny\nname: tiny\nwidth: 4\n",
}


SERVER = """
import json, os, sys, traceback
from ftp_cl.cli import main
import ftp_cl.runs.run, ftp_cl.study.write

assert not {"polars", "timm"} & sys.modules.keys(), "nobody waits for what a run does without"

for line in sys.stdin:
    commands, output = json.loads(line)
    if not (child := os.fork()):
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        status = 1
        try:
            status = next(filter(None, map(main, commands)), 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """The command line of a copy of the package that has the new files; returns what it printed.

    One process imports the copy, which takes longer than all runs here; it forks for each call.
    """
    folder = tmp_path_factory.mktemp("copy")
    # With what Python and Numba have compiled, but not what they are writing just now.
    without = shutil.ignore_patterns("configs", "*.pyc.*", "tmp*")
    shutil.copytree(ROOT / "ftp_cl", folder / "ftp_cl", ignore=without)
    shutil.copytree(ROOT / "configs", folder / "ftp_cl" / "configs")
    for name, text in FILES.items():
        (folder / "ftp_cl" / name).write_text(text)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment, **pipes)
    outputs = (folder / f"output_{number}" for number in itertools.count())

    def start(*commands):
        """One after the other, as far as they succeed; returns the number of the process, and where it prints."""
        output = next(outputs)
        print(json.dumps([commands, str(output)]), file=server.stdin, flush=True)
        return int(server.stdout.readline()), output

    def end():
        return int(server.stdout.readline())

    def run(*commands, status=0):
        _, output = start(*commands)
        found, printed = end(), output.read_text()
        assert found == status, printed
        return printed

    run.folder, run.start, run.end = folder, start, end
    yield run
    server.stdin.close()
    server.wait()


def result(call, name):
    return json.loads((call.folder / name / "result.json").read_text())


@pytest.mark.slow
def test_list_and_refusals_know_the_new_files(call):
    job = ["run", "--cfg", "job", "method=shrink"]
    printed = call(["list"], [*job, "method.most=5", "with=ftp"], [*job, "method.strenth=1"], status=2)
    assert all(word in printed for word in ("Weights shrink.", "Few digits.", "Tiny."))
    assert "name: ftp_shrink" in printed and "did you mean method.strength?" in printed


@pytest.mark.slow
def test_a_new_method_resumes_after_a_kill_to_the_last_digit(call):
    words = ["run", *DIGITS, *QUICK, "method=shrink", "with=ftp", "checkpoint.every_iterations=3", "train.epochs=3"]
    process, _ = call.start([*words, "out=whole"], [*words, "out=killed"])
    events, deadline = call.folder / "killed" / "metrics.jsonl", time.monotonic() + 120
    while not (events.exists() and '"eval"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)  # the first experience is evaluated: its checkpoint is written
    os.kill(process, signal.SIGKILL)
    assert call.end() == -signal.SIGKILL
    assert not (call.folder / "killed" / "result.json").exists()
    assert "resumed at" in call([*words, "out=killed", "resume=true"])
    whole, killed = result(call, "whole"), result(call, "killed")
    assert whole["method"] == "ftp_shrink" and whole["projection"]
    assert killed["accuracy_matrix"] == whole["accuracy_matrix"] and killed["projection"] == whole["projection"]


@pytest.mark.slow
def test_a_new_backend_runs_and_is_named_where_one_is_unknown(call):
    words = ["run", *DIGITS, *QUICK, "method=ftp"]
    backends = ("slow", "torch", "slwo")
    printed = call(*([*words, f"method.backend={name}", f"out={name}"] for name in backends), status=2)
    assert (call.folder / "slow_steps").read_text()
    assert result(call, "slow")["accuracy_matrix"] == result(call, "torch")["accuracy_matrix"]
    assert "available are 'auto', 'numba', 'slow', 'torch'" in printed


@pytest.mark.slow
def test_compare_and_report_know_a_new_method_benchmark_and_model(call):
    quick = ["train.epochs=1", "benchmark.size=16"]
    plan = {
        **{"settings": ["shots_2"], "trials": 2, "tuning_seeds": [100], "seeds": [0], "references": ["ncm"]},
        "methods": {
            "ncm": {"overrides": ["method=ncm", *quick]},
            "shrink": {"overrides": ["method=shrink", *quick], "space": {"method.strength": {"log": [1e-4, 1e-2]}}},
        },
    }
    (call.folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    call(
        ["run", "benchmark=two_digits", "model=tiny", "method=shrink", *QUICK, "out=rows/run"],
        ["compare", "--plan", "plan.yaml", "--results", "rows", "--workers", "1"],
        ["report", "rows", "--out", "report"],
    )
    assert result(call, "rows/run")["benchmark"] == "two_digits" and result(call, "rows/run")["model"] == "tiny"
    assert "| shrink |" in (call.folder / "rows" / "README.md").read_text()
    text = (call.folder / "report" / "report.md").read_text().replace("\\_", "_")
    assert "two_digits" in text and "split_emoji, shots_2" in text and "shrink" in text
