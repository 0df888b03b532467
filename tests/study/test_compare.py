"""The comparison: equal budgets, nothing run twice, tables that follow from the results."""

import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from ftp_cl.cli import main
from ftp_cl.runs.catalogue import experiment_description
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.data import benchmark_of
from ftp_cl.study.compare import _seed_jobs, chosen, compare, gpu_of_its_own
from ftp_cl.study.plan import PLANS, Range, load_plan
from ftp_cl.study.plan_figures import area, width
from ftp_cl.study.plan_tables import write_tables
from ftp_cl.study.significance import paired_interval
from ftp_cl.study.store import Store

SMALL = ["benchmark.size=16", "train.epochs=1", "benchmark.ood_domains=[twemoji]"]
SMALL += ["model=small_cnn", "model.in_channels=3"]

PLAN = {
    "settings": ["shots_2"],
    "trials": 3,
    "tuning_seeds": [100],
    "seeds": [0, 1],
    "references": ["ncm"],
    "methods": {
        "naive": {
            "overrides": ["method=naive", *SMALL],
            "start": {"optimizer.backbone_lr": 1e-5},
            "space": {"optimizer.backbone_lr": {"log": [1e-6, 1e-3]}, "optimizer.lr": {"choice": [1e-3, 3e-3]}},
        },
        "ncm": {"overrides": ["method=ncm", *SMALL]},
    },
    "quick": {"only": ["ncm"], "seeds": [0]},
}


@pytest.fixture
def plan_file(tmp_path):
    def write(**changes):
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({**PLAN, **changes}))
        return str(path)

    return write


# ---- the plan that ships --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "quick"), [("comparison", True), *(pytest.param(name, False, marks=pytest.mark.slow) for name in PLANS)]
)
def test_every_trial_of_a_shipped_plan_is_a_valid_configuration(name, quick):
    plan = load_plan(name, quick)
    assert plan.references and len(plan.seeds) >= 3
    for setting in plan.settings:
        load_config([f"+experiment={plan.experiment(setting)}"])
        assert experiment_description(plan.experiment(setting)).endswith(".")  # begins its table
    for method in plan.methods:
        trials = method.trials(plan.trials)
        assert len(set(trials)) == (plan.trials if method.space else 1)
        if name != "rates":
            load_config([f"+experiment={plan.experiment(plan.settings[0])}", *trials[-1]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment",
    sorted(
        experiment
        for experiment in {plan.experiment(setting) for plan in map(load_plan, PLANS) for setting in plan.settings}
        if experiment.startswith(("compare_", "few_labels_")) and not experiment.endswith(("_text", "_lite2"))
    ),  # of the images that ship; _lite2 has the images of another one
)
def test_the_data_of_every_setting_can_be_made_to_report_and_to_tune(experiment):
    for seed in (0, 100):
        benchmark, _ = benchmark_of(load_config([f"+experiment={experiment}", "benchmark.size=8", f"seed={seed}"]))
        assert all(len(experience.dataset) for experience in benchmark.train_stream)


def test_trials_fill_the_space_and_do_not_depend_on_their_number():
    method = next(method for method in load_plan().methods if method.name == "naive")
    few, many = method.trials(5), method.trials(17)
    assert few == many[:5]
    rates = [float(trial[-1].partition("=")[2]) for trial in many[1:]]
    low, high = method.space["optimizer.backbone_lr"].low, method.space["optimizer.backbone_lr"].high
    assert all(low <= rate <= high * 1.01 for rate in rates)
    quarters = np.floor(4 * np.log(np.array(rates) / low) / np.log(high / low)).clip(0, 3)
    assert (np.bincount(quarters.astype(int), minlength=4) >= 3).all()


def test_values_of_a_range():
    assert Range(1e-4, 1e-2, log=True).value(0.5) == "0.001"
    assert Range(0.0, 1.0).value(0.25) == "0.25"
    assert [Range(choices=("a", "b")).value(share) for share in (0.0, 0.49, 0.5, 0.99)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": [0, 100]}, "seed 100 both tunes and is reported"),
        ({"references": ["ftp"]}, "the reference ftp is none of the methods"),
        ({"methods": {"ncm": {"overrides": ["method=ncm"], "spaces": {}}}}, "unknown key spaces"),
        ({"methods": {"ncm": {"overrides": ["method=ncm"], "space": {"a": {"log": [0, 1]}}}}}, "space of a must be"),
        ({"methods": {"ncm": {}}}, "key 'overrides' is missing"),
        ({"tuned_in": {"shots_2": "shots_4"}}, "shots_2 cannot be tuned in shots_4"),
        ({"settings": ["a", "b"], "tuned_in": {"a": "b", "b": "a"}}, "a cannot be tuned in b"),
        ({"tuned_together": True, "tuned_in": {"shots_2": "shots_2"}}, "tuned_together and tuned_in exclude"),
        ({"figures": {"label": ["shots_2"]}}, "there is no figure label"),
        ({"mean_over": ["shots_3"]}, "mean_over has shots_3, which is none of the settings"),
        ({"figures": {"labels": ["shots_3"]}}, "the figure labels has shots_3, which is none of the settings"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_sentence(plan_file, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_plan(plan_file(**changes))


RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/runs.parquet")))
def test_the_shipped_tables_follow_from_the_shipped_results(name, tmp_path):
    copy = Store(tmp_path)
    copy.merge([Store(RESULTS / name)])
    assert write_tables(load_plan(name), copy).read_text() == (RESULTS / name / "README.md").read_text()


@pytest.mark.parametrize("name", ["cifar100", "few_labels", "grocery"])  # tuned, in several settings, with=ftp
def test_what_is_stored_is_not_run_again(name):
    plan, results = load_plan(name), Store(RESULTS / name)
    stored = {(run["setting"], run["row"], run["seed"]) for run in results.runs()}
    again = [(job.setting, job.method, job.seed) for each in plan.settings for job in _seed_jobs(plan, each, results)]
    assert stored and not stored.intersection(again)


@pytest.mark.parametrize(("name", "method"), [("comparison", "lda"), ("defaults", "lda"), ("recommended", "published")])
def test_the_shipped_means_are_those_of_the_shipped_runs(name, method):
    plan = load_plan(name)
    runs = [run for run in Store(RESULTS / name).runs(row=method) if run["setting"] in plan.mean_over]
    mean = np.mean([run["average_accuracy"] for run in runs])
    text = (RESULTS / name / "README.md").read_text()
    section = text.partition("## Mean over the settings")[2].partition("\n## ")[0]
    assert f"| {method} | {mean:.1f} ± " in section and "| 10 |" in section


def test_the_mean_over_settings_waits_for_all_of_them(tmp_path, plan_file, row_content):
    changes = {"methods": {"ncm": PLAN["methods"]["ncm"]}, "settings": ["shots_2", "robust"], "seeds": [0]}
    plan, results = load_plan(plan_file(**changes, mean_over=["shots_2", "robust"])), Store(tmp_path)
    for setting, shown in (("shots_2", False), ("robust", True)):
        results.add_run(setting, "ncm", row_content(0, 40.0))
        assert ("## Mean over the settings" in write_tables(plan, results).read_text()) == shown
    assert "over shots_2, robust." in (tmp_path / "README.md").read_text()


def test_an_unknown_setting_is_refused_with_the_nearest(refused):
    assert "did you mean robust?" in refused("compare", "robst")
    assert "one of comparison, defaults, recommended, ablations, rates, few_labels" in refused(
        "compare", "--plan", "ablation"
    )


def test_tuned_together_a_method_is_tuned_where_it_takes_part(plan_file):
    methods = {**PLAN["methods"], "ncm": {**PLAN["methods"]["ncm"], "settings": ["robust"]}}
    plan = load_plan(plan_file(settings=["robust", "shots_2"], tuned_together=True, methods=methods))
    naive, ncm = plan.methods
    assert plan.tuning_settings("robust", naive) == ("robust", "shots_2")
    assert plan.tuning_settings("robust", ncm) == ("robust",)


def test_tuned_together_one_trial_is_chosen_by_the_mean_over_settings(tmp_path, plan_file, row_content):
    plan = load_plan(plan_file(settings=["robust", "shots_2"], tuned_together=True, tuning_seeds=[100, 101]))
    naive = plan.methods[0]
    first, second, third = naive.trials(plan.trials)
    scores = {  # the first is the best in robust, the second in shots_2, the third on average
        "robust": {first: (61, 59), second: (50, 50), third: (57, 57)},
        "shots_2": {first: (30, 30), second: (46, 44), third: (41, 43)},
    }
    results = Store(tmp_path)
    for setting, of_trials in scores.items():
        assert chosen(plan, naive, setting, results.tuning()) is None  # as long as a run is missing
        for trial, of_seeds in of_trials.items():
            for seed, score in zip(plan.tuning_seeds, of_seeds, strict=True):
                results.add_tuning(setting, "naive", trial, row_content(seed, float(score)))
    tuning = results.tuning()
    assert chosen(plan, naive, "robust", tuning) == chosen(plan, naive, "shots_2", tuning) == third
    text = write_tables(plan, results).read_text()
    assert f"| naive | 3 | 49.5 | 47.5 | 45.0 | {', '.join(f'`{word}`' for word in third[1 + len(SMALL) :])} |" in text


# ---- running --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison_tunes_reports_and_is_not_run_twice(tmp_path, plan_file, capsys):
    arguments = ["compare", "--plan", plan_file(), "--results", str(tmp_path / "results")]
    arguments += ["--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main(arguments) == 0
    results, plan = Store(tmp_path / "results"), load_plan(plan_file())
    tuning = results.tuning()
    assert [run["seed"] for run in tuning] == [100, 100, 100]
    best = max(tuning, key=lambda run: run["average_accuracy"])
    assert chosen(plan, plan.methods[0], "shots_2", tuning) == tuple(best["overrides"])
    runs = results.runs("shots_2", "naive")
    assert [(run["seed"], run["config"]["eval"]["stream"]) for run in runs] == [(0, "test"), (1, "test")]
    asked = load_config(["+experiment=compare_shots_2", *best["overrides"]]).optimizer
    assert all(run["config"]["optimizer"] == OmegaConf.to_container(asked) for run in runs)

    files = [tmp_path / "results" / name for name in ("runs.parquet", "tuning.parquet", "README.md")]
    before = [file.read_bytes() for file in files]
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of" not in capsys.readouterr().out
    assert [file.read_bytes() for file in files] == before

    mean = np.mean([run["average_accuracy"] for run in results.runs(row="ncm")])
    lines = before[2].decode().splitlines()
    head, row = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("method", "ncm"))
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert cells["accuracy"].startswith(f"{mean:.1f} ±") and (cells["n"], cells["trials"]) == ("2", "0")
    assert "forgetting" not in cells  # of one experience there is none

    # A kill between a run's end and its row costs nothing: the run directory has the result.
    before = results.runs(row="ncm", seed=1)
    results.drop(None, "ncm")
    assert main(arguments) == 0
    assert results.runs(row="ncm", seed=1) == before


FEW_LABELS = {
    "prefix": "few_labels_",
    "settings": ["robust_4", "robust_2"],
    "trials": 2,
    "tuned_in": {"robust_2": "robust_4"},
    "tuning_seeds": [100],
    "seeds": [0],
    "references": ["naive"],
    "figures": {"labels": ["robust_2", "robust_4"], "pseudo_labels": ["robust_4"]},
    "methods": {
        "naive": {"overrides": ["method=naive"], "space": {"optimizer.lr": {"log": [1e-3, 1e-2]}}},
        "fixmatch": {"overrides": ["method=fixmatch"], "space": {"method.threshold": {"choice": [0.0, 0.1]}}},
    },
}


@pytest.mark.slow
def test_a_plan_with_few_labels_tunes_once_and_draws_its_figures(tmp_path, plan_file, capsys):
    for method in FEW_LABELS["methods"].values():
        method["overrides"] = [*method["overrides"][:1], "benchmark=split_digits", "model=small_cnn", "train.epochs=1"]
    results, file = tmp_path / "results", plan_file(**FEW_LABELS, quick={})
    arguments = ["compare", "--plan", file, "--results", str(results), "--runs", str(tmp_path / "runs")]
    # Alone, a setting has that run which it is tuned in.
    assert main([*arguments, "--workers", "1", "robust_2"]) == 0
    found = Store(results)
    assert [(run["setting"], run["row"]) for run in found.runs()] == [("robust_2", "fixmatch"), ("robust_2", "naive")]
    assert {run["setting"] for run in found.tuning()} == {"robust_4"}
    assert main([*arguments, "--workers", "1"]) == 0
    plan = load_plan(file)
    for method in plan.methods:
        assert len([run for run in found.tuning() if run["row"] == method.name]) == 2
        overrides = chosen(plan, method, "robust_2", found.tuning())
        for setting, labels in (("robust_2", 2), ("robust_4", 4)):
            (run,) = found.runs(setting, method.name)
            config = OmegaConf.create(run["config"])
            assert config.labels.per_class == labels
            key, _, value = overrides[-1].partition("=")
            assert OmegaConf.select(config, key) == pytest.approx(float(value)) or overrides == method.overrides
            assert len(run["pseudo_labels"]) == (config.train.epochs if method.name == "fixmatch" else 0)
    text = (results / "README.md").read_text()
    assert "All methods have the values that were chosen in robust_4." in text
    for figure in ("labels", "pseudo_labels"):
        assert f"({figure}.svg)" in text and (results / f"{figure}.svg").stat().st_size > 1000


def test_a_run_that_fails_leaves_the_others_alone(tmp_path, plan_file, capsys):
    broken = {"overrides": ["method=ncm", "benchmark.size=1"]}
    plan = load_plan(plan_file(methods={"broken": broken, "ncm": PLAN["methods"]["ncm"]}))
    results = Store(tmp_path / "results")
    assert compare(plan, results, tmp_path / "runs", workers=1) == 2
    assert "broken, seed 0 failed: size=1" in capsys.readouterr().out
    assert [(run["row"], run["seed"]) for run in results.runs()] == [("ncm", 0), ("ncm", 1)]
    assert "| ncm |" in write_tables(plan, results).read_text()


@pytest.mark.parametrize(("gpus", "given", "at_once"), [(2, None, 2), (2, 5, 5), (0, None, 7), (0, 3, 3)])
def test_by_default_each_gpu_has_one_run_at_a_time(tmp_path, plan_file, monkeypatch, gpus, given, at_once):
    started = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.setattr(
        "ftp_cl.study.compare.Parallel", lambda number, **_: started.append(number) or (lambda jobs: ())
    )
    plan = load_plan(plan_file(seeds=list(range(10)), methods={"ncm": PLAN["methods"]["ncm"]}))
    compare(plan, Store(tmp_path / "results"), tmp_path / "runs", given)
    assert started == [at_once]


def test_runs_beside_each_other_share_out_the_gpus(tmp_path, monkeypatch):
    """Whoever ends lets the next run have its place, in whatever process that is."""
    taken = []
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    place = partial(gpu_of_its_own, OmegaConf.create({"device": "auto"}), tmp_path, 3)
    with place(), place():
        with place():
            assert taken == [0, 1, 0]
        with place():
            assert taken == [0, 1, 0, 0]
    with place(), gpu_of_its_own(OmegaConf.create({"device": "cuda:1"}), tmp_path, 3):
        assert taken == [0, 1, 0, 0, 0]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # a driver that is too old for this torch
    with place():
        assert len(taken) == 5


def test_when_time_is_over_no_run_is_started(tmp_path, plan_file):
    plan = load_plan(plan_file(), quick=True)
    assert [method.name for method in plan.methods] == ["ncm"]
    assert compare(plan, Store(tmp_path / "results"), tmp_path / "runs", workers=1, minutes=0) == 1
    assert not (tmp_path / "results").exists()


def test_the_interval_is_students():
    # Mean 3, deviation sqrt(2.5), t(4, 0.975) = 2.776445 (a printed table): 3 -+ 2.776445 sqrt(2.5 / 5).
    assert paired_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((1.036757, 4.963243), abs=1e-5)
    assert paired_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert paired_interval([1.0, 1.0]) == (-math.inf, math.inf)  # two seeds agree by chance, and would show no spread


def test_a_row_for_each_value_of_a_key(plan_file):
    each = {"overrides": ["method=naive"], "each": {"optimizer.backbone_lr": [0.25, 0.5]}}
    plan = load_plan(plan_file(methods={"naive, linear": each}, references=["naive, linear, 0.25"]))
    assert [method.name for method in plan.methods] == ["naive, linear, 0.25", "naive, linear, 0.5"]
    assert plan.methods[1].trials(1) == [("method=naive", "optimizer.backbone_lr=0.5")]


def test_results_from_before_a_new_key_stay_in_their_row(tmp_path, plan_file, row_content):
    plan, results = load_plan(plan_file()), Store(tmp_path)
    for seed, config in ((0, {"method": {"k": 1}}), (1, {"method": {"k": 1, "backend": "auto"}})):
        results.add_run("shots_2", "ncm", row_content(seed, 40.0 + 10 * seed, config))
    assert "| ncm | 45.0 ± 7.1 |" in write_tables(plan, results).read_text()


def test_a_plan_on_masks_tells_mean_iou(tmp_path, plan_file, row_content):
    plan, results = load_plan(plan_file()), Store(tmp_path)
    results.add_run("shots_2", "ncm", {**row_content(0, 40.0), "metric": "mean_iou"})
    assert "| method | mean IoU | OOD mean IoU | Δ mean IoU to ncm |" in write_tables(plan, results).read_text()


def test_what_rounding_leaves_is_no_difference():
    low, high = paired_interval([1e-7, 2e-7, 2e-7])
    assert low == high == 0


def test_curves_are_told_apart_by_the_names_of_their_rows(tmp_path, plan_file, row_content):
    each = {"optimizer.backbone_lr": [0.25, 0.5]}
    rows = {
        "naive": {"overrides": ["method=naive"], "each": each},
        "naive, linear": {"overrides": ["method=naive", "model.head=linear"], "each": each},
        "l2_sp": {"overrides": ["method=l2_sp"], "each": each, "space": {"method.strength": {"log": [0.1, 1]}}},
        "frozen": {"overrides": ["method=linear_probe"]},  # a level line
        "tuned": {"overrides": ["method=naive"], "space": {"optimizer.backbone_lr": {"log": [0.1, 1]}}},
    }
    plan = load_plan(plan_file(methods=rows, references=["naive, 0.25"], figures={"rates": ["shots_2"]}))
    results = Store(tmp_path)
    results.add_run("shots_2", "frozen", row_content(0, 48.0, {"optimizer": {"backbone_lr": None}}))
    assert "| frozen | average accuracy (%) | 48.0 | | | |" in write_tables(plan, results).read_text()  # alone so far
    accuracies = {"naive": (50.0, 40.0), "naive, linear": (55.0, 45.0), "l2_sp": (60.0, 50.0)}
    for name, (low, high) in accuracies.items():
        for rate, accuracy in ((0.25, low), (0.5, high)):
            config = {"optimizer": {"backbone_lr": rate}}
            results.add_run("shots_2", f"{name}, {rate}", row_content(0, accuracy, config))
    results.add_run("shots_2", "tuned", row_content(0, 58.0, {"optimizer": {"backbone_lr": 0.3}}))
    tables = write_tables(plan, results).read_text()
    assert "| naive | average accuracy (%) | 50.0 | 0.25 | 45.0 | 0.0 |" in tables
    assert "| naive, linear | average accuracy (%) | 55.0 | 0.25 | 50.0 | 0.0 |" in tables
    assert "| l2_sp | average accuracy (%) | 60.0 | 0.25 | 55.0 | 0.0 |" in tables
    assert "| frozen | average accuracy (%) | 48.0 | | | |" in tables
    assert "| tuned | 58.0 |" in tables and "| tuned | average accuracy (%) |" not in tables
    figure = (tmp_path / "rates.svg").read_text()
    assert "naive, linear" in figure and "mathdefault" not in figure


def test_a_curve_tells_its_area_and_how_wide_its_best_is():
    rates, means = [1e-5, 1e-4, 1e-3, 1e-2], [50.0, 60.0, 59.0, 10.0]
    assert area(rates, means) == pytest.approx((55 + 59.5 + 34.5) / 3)
    assert width(rates, means) == pytest.approx(1.0)
    assert width([1e-5, 1e-4, 1e-3], [60.0, 50.0, 59.0]) == 0, "a second range does not count"
    assert (area([1e-4], [60.0]), width([1e-4], [60.0])) == (60, 0)


WORK = """
import os, pathlib, signal, sys, time
from joblib import Parallel, delayed

def work(number, parent):  # as a run, which leaves by SystemExit
    from ftp_cl.study.compare import end_with
    end_with(parent)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch()
        time.sleep(120)
    finally:
        signal.signal(signal.SIGTERM, before)

Parallel(2, pre_dispatch=4)(delayed(work)(number, os.getpid()) for number in range(4))
"""


def test_workers_end_soon_after_who_started_them(tmp_path):
    """As after a signal to `ftp-cl compare` alone."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "parent.py").write_text(WORK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path / "pids"], env=environment)
    while len(workers := [path.name for path in (tmp_path / "pids").iterdir()]) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    parent.terminate()
    parent.wait()
    end = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
