"""Many runs: failures leave the others alone, finished ones are skipped, launchers and sweepers work."""

import json
import os
import subprocess
import sys

import pytest
from joblib.externals import loky

from ftp_cl.runs.directory import run_directory
from ftp_cl.runs.lock import DirectoryLock
from ftp_cl.runs.status import LOCK_FILE, is_locked
from ftp_cl.runs.sweep import PLUGINS

QUICK = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "method=naive"),
    *("train.epochs=1", "train.batch_size=64", "eval.ood_every=never", "threads=1"),
]


def results(directory):
    return sorted(path.parent.name for path in directory.glob("*/result.json"))


def test_a_failed_run_is_listed_at_the_end_and_leaves_the_others_alone(ftp_cl, tmp_path):
    status, _, error = ftp_cl("run", "-m", *QUICK, "benchmark.n_experiences=2,3,5")
    assert status == 1
    assert "n_experiences=3" in error and "does not divide" in error and "1 failed" in error
    assert len(results(tmp_path / "runs")) == 2
    (failure,) = (tmp_path / "runs").glob("*/error.json")
    assert "Traceback" in json.loads(failure.read_text())["traceback"]
    # Only what failed is tried again, and an old error is not told as a new one.
    status, printed, error = ftp_cl("run", "-m", *QUICK, "benchmark.n_experiences=2,5")
    assert status == 0 and printed.count("nothing to do") == 2 and "failed" not in error


@pytest.mark.parametrize(
    ("out", "place"),
    [
        ("++out=x", "x"),
        ("out=x_${benchmark.name}", "x_split_digits"),
        ("out=${oc.env:HOME}/x", "home/x"),
        ("out='~/x'", "home/x"),
        ("out=x,y", "x"),
    ],
)
def test_a_sweep_whose_runs_all_fail_says_so_wherever_they_go(ftp_cl, tmp_path, monkeypatch, out, place):
    def fail(*_):
        raise ValueError("no such images \x1b[31m")

    monkeypatch.setattr("ftp_cl.runs.run.benchmark_of", fail)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    status, _, error = ftp_cl("run", "-m", *QUICK, "seed=0,1", out)
    assert status == 1 and error.count("failed: no such images") >= 2 and "\x1b" not in error
    assert len(list((tmp_path / place).glob("*/error.json"))) == 2 and not list((tmp_path / "runs").glob(".fail*"))


@pytest.mark.parametrize(
    "word", ["seed=range(0,0)", "train.epochs=1,0", "method=naive,ftpp", "optimizer.lrr=1,2", "hydra/launcher=nope"]
)
def test_a_wrong_value_stops_a_sweep_before_anything_runs(refused, tmp_path, word):
    refused("run", "-m", *QUICK, word)
    assert not results(tmp_path / "runs")


def test_a_launcher_that_is_not_installed_names_its_extra_and_an_unknown_one_those_that_are_there(refused, monkeypatch):
    words = [*QUICK, "hydra/launcher=nope"]
    assert "hydra/launcher=nope is unknown; there are basic" in refused("run", "-m", *words)
    monkeypatch.setitem(PLUGINS, "nope", "slurm")
    assert "hydra/launcher=nope needs pip install 'ftp-cl[slurm]'" in refused("run", "-m", *words)


def test_two_processes_never_write_one_directory(ftp_cl, refused, tmp_path):
    (tmp_path / "run").mkdir()
    with DirectoryLock(tmp_path / "run"):
        assert is_locked(tmp_path / "run")
        assert f"is being written by process {os.getpid()}" in refused("run", *QUICK, "out=run")
    assert not is_locked(tmp_path / "run")
    assert ftp_cl("run", *QUICK, "out=run")[0] == 0
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_directories_are_named_by_what_changes_numbers():
    assert run_directory(["seed=1", "method=ftp"]) == run_directory(
        ["method=ftp", "out=x", "resume=true", "checkpoint.every_minutes=1", "hydra/launcher=ray", "seed=1"]
    )
    long = [f"+benchmark.key{i}=value" for i in range(100)]
    assert len(run_directory(long).name) < 255
    assert run_directory(long) != run_directory([*long, "seed=1"])


# ---- launchers and sweepers -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_joblib_shares_the_cores(ftp_cl, tmp_path):
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1", "threads=null"]
    status, printed, error = ftp_cl("run", "-m", *QUICK, *words)
    loky.get_reusable_executor().shutdown()
    assert status == 0, printed + error
    assert len(results(tmp_path / "runs")) == 2
    for path in (tmp_path / "runs").glob("*/result.json"):
        environment = json.loads(path.read_text())["environment"]
        assert environment["threads"] <= max(1, environment["cores"] // 2)


@pytest.mark.slow
def test_submitit_runs_each_job_in_a_process_of_its_own(ftp_cl, tmp_path):
    status, printed, error = ftp_cl("run", "-m", *QUICK, "hydra/launcher=submitit_local", "seed=0,1")
    assert status == 0, printed + error
    assert len(results(tmp_path / "runs")) == 2


@pytest.mark.slow
def test_ray_runs_jobs_on_a_cluster_of_two_nodes(tmp_path, monkeypatch):
    from ray import cluster_utils

    monkeypatch.setenv("RAY_worker_niceness", "0")  # of 15 a busy machine makes minutes
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        # The launcher sets the size of Ray's object store, which a running cluster refuses; null takes it back.
        init = "+hydra.launcher.ray.init"
        address, memory = f"{init}.address='{cluster.address}'", f"{init}.object_store_memory=null"
        code = "import sys; from ftp_cl.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "run", "-m", *QUICK, "hydra/launcher=ray", address, memory, "seed=0,1"]
        finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    finally:
        cluster.shutdown()
    assert len(results(tmp_path / "runs")) == 2


@pytest.mark.slow
def test_an_optuna_study_is_shared_through_its_storage(ftp_cl, tmp_path):
    import optuna

    study = [
        *("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "hydra.sweeper.study_name=lr"),
        *("hydra.sweeper.direction=maximize", "hydra.sweeper.storage=sqlite:///study.db"),
        *("optimizer.lr=interval(1e-4,1e-2)", "objective=average_accuracy"),
    ]
    for _ in range(2):
        status, _, error = ftp_cl("run", "-m", *QUICK, *study)
        assert status == 0, error
    trials = optuna.load_study(study_name="lr", storage=f"sqlite:///{tmp_path / 'study.db'}").trials
    assert len(trials) == 4 and len(results(tmp_path / "runs")) == 4
    accuracies = [
        json.loads(path.read_text())["average_accuracy"] for path in (tmp_path / "runs").glob("*/result.json")
    ]
    assert sorted(trial.value for trial in trials) == pytest.approx(sorted(accuracies))
