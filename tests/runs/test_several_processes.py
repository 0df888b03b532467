"""Two processes that train together equal one, with the same batches; what they cannot do they refuse."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftp_cl.runs.checkpoints import Checkpoints
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.group import METHODS
from ftp_cl.runs.run import run
from ftp_cl.runs.termination import Termination

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


OPTIONS = {
    "ewc": ["method.ewc_lambda=10"],
    "fixmatch": ["labels.per_class=20", "method.ratio=1", "train.epochs=2"],
    "lda": ["method.features=all", "method.drift=true"],
    "ranpac": ["method.features=all", "method.projection_size=500"],
}


def forked(directory: Path, *overrides: str, killed_after: int | None = None) -> list[int | None]:
    """How two processes end that are forked from this one, which has imported everything: torchrun's would do it anew.

    `killed_after`: iterations, after which the second process gets SIGKILL.
    """
    config = load_config([*SHORT, *overrides])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in given.items()})
        if rank == 1 and killed_after is not None:
            done, whole = itertools.count(1), Checkpoints.iteration_done

            def iteration_done(*args):
                whole(*args)
                if next(done) == killed_after:
                    os.kill(os.getpid(), signal.SIGKILL)

            Checkpoints.iteration_done = iteration_done
        run(config, directory)

    processes = [multiprocessing.get_context("fork").Process(target=work, args=(rank,)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
    finally:
        for process in processes:
            process.kill()
    return [process.exitcode for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ftp", *METHODS])
def test_two_processes_equal_one_also_when_one_was_killed(tmp_path, method):
    options = [f"method={method}", *OPTIONS.get(method, [])]
    run(load_config([*SHORT, *options]), tmp_path / "one")
    assert forked(tmp_path / "two", *options) == [0, 0]
    assert_the_same(tmp_path / "two", tmp_path / "one")
    # In the second experience methods have something to keep of the first; APER trains on that one only.
    cut, iterations = tmp_path / "cut", {"aper": 7, "fixmatch": 7}.get(method, 12)
    assert forked(cut, *options, "checkpoint.every_iterations=2", killed_after=iterations) == [1, -signal.SIGKILL]
    assert list(cut.glob("checkpoints/*.pt")) and not (cut / "result.json").exists()
    assert forked(cut, *options, "resume=true") == [0, 0]
    assert_the_same(cut, tmp_path / "one")


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_they_go_on_where_they_were(tmp_path):
    options = ["method=ftp_replay", "train.epochs=3", "checkpoint.every_iterations=2"]
    process = started(tmp_path / "two", *options)
    wait_for(lambda: list((tmp_path / "two").glob("checkpoints/*.pt")), process)
    os.kill(second_of(process), signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and not (tmp_path / "two" / "result.json").exists(), output
    process = started(tmp_path / "two", *options, "resume=true")
    run(load_config([*SHORT, *options]), tmp_path / "one")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "resumed at experience 1, epoch" in output, output
    assert output.count("on what was seen") == 2  # the first process prints
    assert_the_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_with_a_sentence(tmp_path):
    process = started(tmp_path / "two", "method=naive", "train.epochs=200", "checkpoint.every_iterations=2")
    wait_for(lambda: list((tmp_path / "two").glob("checkpoints/*.pt")), process)
    os.kill(second_of(process), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "ftp-cl: another process of this run has ended or cannot be reached; resume=true goes on" in output


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
def test_workers_load_the_share_of_each_process_and_last_batches_may_be_too_small_for_all(tmp_path):
    """Of 505 images in the first experience, 36 batches of 14 leave one, which one process trains on."""
    options = ["method=naive", "train.augmentation=shift", "loader.workers=1", "train.batch_size=14"]
    run(load_config([*SHORT, *options]), tmp_path / "one")
    assert forked(tmp_path / "two", *options) == [0, 0]
    assert_the_same(tmp_path / "two", tmp_path / "one")


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
