"""Two processes that train together equal one, with the same batches; what they cannot do they refuse."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftp_cl.cli import main
from ftp_cl.runs.checkpoints import Checkpoints
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.group import METHODS
from ftp_cl.runs.run import run
from ftp_cl.runs.termination import Termination

SHORT = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "+benchmark.shots=53", "model=small_cnn"),
    *("train.epochs=1", "train.batch_size=31", "threads=1", "save_weights=true"),
    *("optimizer.name=sgd", "optimizer.lr=0.02"),
]
ROOT = Path(__file__).parents[2]


def started(directory: Path, *overrides: str) -> subprocess.Popen:
    """Two processes, as a user starts them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ftp_cl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*torchrun, "run", *SHORT, *overrides, f"out={directory}"]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def forked(directory: Path, *overrides: str, killed_after: int | None = None) -> tuple[list[int], Path]:
    """Run in two processes, which need import nothing after a run in this one; returns their numbers, and their output.

    `killed_after`: iterations, after which the second kills itself.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    output = directory.with_suffix(".log")
    output.write_text("")
    words = [*SHORT, *overrides, f"out={directory}"]
    return [os.fork() or run_as(rank, given, output, words, rank and killed_after) for rank in (0, 1)], output


def statuses(children: list[int]) -> list[int]:
    """How they end."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def succeed(children: list[int], output: Path) -> str:
    """Wait until both have; returns what they have printed."""
    assert statuses(children) == [0, 0], output.read_text()
    return output.read_text()


def run_as(rank: int, given: dict, output: Path, words: list[str], killed_after: int | None):
    """End this process with the status of the run that it carries out."""
    status = 1
    signal.alarm(300)
    try:
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream)
        os.environ.update({name: str(value) for name, value in {**given, "RANK": rank, "LOCAL_RANK": rank}.items()})
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if killed_after:
            kill_after(killed_after)
        status = main(["run", *words])
    except SystemExit as leaving:
        status = leaving.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def kill_after(iterations: int) -> None:
    """Let this process kill itself then."""
    done, whole = itertools.count(1), Checkpoints.iteration_done

    def iteration_done(*args):
        whole(*args)
        if next(done) == iterations:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoints.iteration_done = iteration_done


def assert_the_same(two: Path, one: Path, within: float = 1e-5) -> None:
    """But for the rounding of sums that are added up in another order."""
    expected, found = (load_file(path / "weights.safetensors") for path in (one, two))
    for name, value in expected.items():
        change = found[name].double() - value.double()
        assert change.norm() <= within * value.double().norm(), name
    results = [json.loads((path / "result.json").read_text()) for path in (one, two)]
    assert [r["environment"]["processes"] for r in results] == [1, 2]
    for key in ("accuracy_matrix", "ood", "pseudo_labels", "classes_per_experience"):
        assert results[0][key] == results[1][key], key
    events = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (one, two)]
    assert [e["event"] for e in events[0]] == [e["event"] for e in events[1]]
    losses = [[event["loss"] for event in of if event["event"] == "train"] for of in events]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


OPTIONS = {
    "ewc": ["method.ewc_lambda=10"],
    "fixmatch": ["labels.per_class=20", "method.ratio=1", "train.epochs=2", "loader.workers=1"],
    "lda": ["method.features=all", "method.drift=true"],
    "ranpac": ["method.features=all", "method.projection_size=500"],
}
# In the second experience, where methods have something to keep of the first; APER trains on the first only.
KILLED_AFTER = {"aper": 7, "fixmatch": 7}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ftp", *METHODS])
def test_two_processes_equal_one_also_when_one_was_killed(tmp_path, method):
    one, two, cut = tmp_path / "one", tmp_path / "two", tmp_path / "cut"
    options = [f"method={method}", *OPTIONS.get(method, [])]
    run(load_config([*SHORT, *options]), one)
    output = succeed(*forked(two, *options))
    assert_the_same(two, one)
    assert output.count("on the experiences so far") == 2  # the first process prints
    iterations = KILLED_AFTER.get(method, 12)
    children, output = forked(cut, *options, "checkpoint.every_iterations=2", killed_after=iterations)
    assert statuses(children) == [2, -signal.SIGKILL] and not (cut / "result.json").exists(), output.read_text()
    words = "ftp-cl: another process of this run has ended or cannot be reached; resume=true goes on"
    assert words in output.read_text()
    assert "resumed at experience" in succeed(*forked(cut, *options, "resume=true"))
    assert_the_same(cut, one)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "by_torchrun"), [("ftp_replay", True), ("fixmatch", False)])
def test_a_signal_to_one_stops_both_and_they_go_on_where_they_were(tmp_path, method, by_torchrun):
    options = [f"method={method}", *OPTIONS.get(method, []), "train.epochs=3", "checkpoint.every_iterations=2"]
    run(load_config([*SHORT, *options]), tmp_path / "one")
    checkpoints = (tmp_path / "two").glob
    if by_torchrun:
        process = started(tmp_path / "two", *options)
        wait_for(lambda: list(checkpoints("checkpoints/*.pt")), process)
        os.kill(second_of(process), signal.SIGTERM)
        output, _ = process.communicate(timeout=300)
        assert process.returncode != 0, output
    else:
        (first, second), output = forked(tmp_path / "two", *options)
        while not list(checkpoints("checkpoints/*.pt")):
            time.sleep(0.01)
        os.kill(second, signal.SIGTERM)
        assert statuses([first, second]) == [143, 143], output.read_text()
    assert not (tmp_path / "two" / "result.json").exists(), output
    output = succeed(*forked(tmp_path / "two", *options, "resume=true"))
    assert "resumed at experience 1, epoch" in output
    assert_the_same(tmp_path / "two", tmp_path / "one")


def test_a_process_that_fails_because_another_ended_is_not_ended_itself_before_it_has_said_so():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ConnectionError), Termination(always_waits=True):
            raise ConnectionError
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


def second_of(process: subprocess.Popen) -> int:
    """The number of the process of rank 1."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"\0RANK=1\0" in (path / "environ").read_bytes():
                return int(path.name)
    raise AssertionError("there is no second process")


@pytest.mark.slow
def test_two_processes_equal_one_that_takes_batches_in_two_parts_to_the_last_bit(tmp_path):
    """Rounding aside, that is: with this seed training makes it 2e-4, between batches whole and in parts as well."""
    options = ["method=replay", "train.batch_size=37", "seed=23"]
    run(load_config([*SHORT, *options, "train.accumulate=2"]), tmp_path / "one")
    succeed(*forked(tmp_path / "two", *options))
    expected, found = (load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
def test_workers_load_the_share_of_each_process_and_last_batches_may_be_too_small_for_all(tmp_path):
    """Of 265 images in an experience, 8 batches of 33 leave one, which one process trains on."""
    options = ["method=naive", "train.augmentation=shift", "loader.workers=1", "train.batch_size=33"]
    run(load_config([*SHORT, *options]), tmp_path / "one")
    succeed(*forked(tmp_path / "two", *options))
    assert_the_same(tmp_path / "two", tmp_path / "one")


@pytest.fixture
def float64():
    """Forked processes have it, too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# A last batch of one image, as above.
ODD = ["train.batch_size=33", "train.freeze_batch_norm=false"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["method=naive", "train.augmentation=shift", "loader.workers=1", *ODD],
        ["method=replay", *ODD, "seed=23"],
        ["method=ewc", "method.ewc_lambda=10", *ODD, "seed=23"],
        ["method=ftp", *ODD, "seed=23"],
        # Of 30 labelled images the last batch has one, which one process has.
        [
            *("method=fixmatch", "labels.per_class=3", "method.ratio=1", "train.batch_size=29"),
            *("benchmark=split_emoji", "benchmark.shots=null", "benchmark.size=64", "benchmark.ood_domains=[blob]"),
            *("eval.ood_every=never", "model=timm", "model.architecture=test_resnet", "model.weights=random"),
            *("model.gradient_checkpointing=true", "train.freeze_batch_norm=false"),
        ],
    ],
    ids=lambda options: options[0].removeprefix("method="),
)
def test_two_processes_equal_one_in_float64_to_many_more_digits(tmp_path, float64, options):
    """Rounding, which training magnifies, is no excuse then."""
    run(load_config([*SHORT, *options]), tmp_path / "one")
    succeed(*forked(tmp_path / "two", *options))
    weights = load_file(tmp_path / "two" / "weights.safetensors")
    assert all(value.dtype == torch.float64 for value in weights.values() if value.is_floating_point())
    assert_the_same(tmp_path / "two", tmp_path / "one", within=1e-11)


@pytest.fixture
def torchrun(monkeypatch):
    """The variables of the first of two processes."""
    given = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    for name, value in {**given, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["method=agem"], "method=agem is not for several processes: these are ftp, naive, l2_sp, .*, also with=ftp"),
        (["method=naive", "plugins=[{name: 'a:B'}]"], "strategy= and plugins= are not for several processes"),
        (["method=naive", "device=cuda:1"], "device=cuda:1 is one for all processes: use device=auto"),
        (["method=naive", "device=cuda"], "2 processes were started here for 1 GPU: start as many"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(torchrun, monkeypatch, tmp_path, options, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=words):
        run(load_config([*SHORT, *options]), tmp_path)


def test_a_sweep_is_not_started_by_torchrun(torchrun, refused):
    assert "torchrun starts several processes for one run" in refused("run", "-m", "seed=0,1")


def test_what_is_wrong_for_all_is_said_once(torchrun, monkeypatch, ftp_cl, refused):
    assert "method=nonsense is unknown" in refused("run", "method=nonsense")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ftp_cl("run", "method=nonsense") == (2, "", "")


def test_a_device_that_one_process_cannot_use_is_said_by_this_one(torchrun, monkeypatch, refused):
    def busy(*_, **__):
        raise RuntimeError("busy")

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", busy)
    assert "device=cuda:1 cannot be used here: busy" in refused("run", *SHORT, "method=naive", "device=cuda")
