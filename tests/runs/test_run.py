"""One run: what it writes, and that the numbers follow from each other."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hydra.utils import get_object

from ftp_cl.runs.catalogue import entry, names, options_of
from ftp_cl.study.loading import load_results
from ftp_cl.study.write import write_report

QUICK = ["benchmark=split_digits", "model=small_cnn", "train.epochs=1", "train.batch_size=64"]


def test_summary_follows_from_the_matrix_and_events_tell_the_same(quick_run, tmp_path):
    result = quick_run("method=ftp")
    matrix = np.array(result["accuracy_matrix"])
    assert result["average_accuracy"] == pytest.approx(matrix[-1].mean())
    drops = [matrix[:-1, j].max() - matrix[-1, j] for j in range(4)]
    assert result["average_forgetting"] == pytest.approx(np.mean(drops))
    assert result["ood_average"] == pytest.approx(np.mean(list(result["ood"].values())))
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [event["accuracy"] for event in events if event["event"] == "eval" and event["stream"] == "test"]
    assert evaluations == result["accuracy_matrix"]
    assert [event["experience"] for event in events if event["event"] == "projection"] == [0, 1, 2, 3, 4]
    assert [len(names) for names in result["classes_per_experience"]] == [2] * 5
    assert load_results([tmp_path / "run"]), "all keys are there"


@pytest.mark.parametrize("method", ["naive", "ftp"])
def test_a_run_that_diverges_ends_and_its_events_are_json(quick_run, tmp_path, method):
    quick_run(
        f"method={method}", "model.head=linear", "optimizer.name=sgd", "optimizer.lr=1e20", "benchmark.n_experiences=1"
    )
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [event["loss"] for event in events if event["event"] == "train"][-1] is None
    (result,) = load_results([tmp_path / "run"])
    assert result.diverged
    assert bool(result.projection) == (method == "ftp")
    write_report([tmp_path / "run"], tmp_path / "report")


def test_more_threads_than_cores_are_told(ftp_cl, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for threads, told in ((2, False), (3, True)):
        words = [*QUICK, "method=naive", "benchmark.n_experiences=1", "eval.ood_every=never", f"out=t{threads}"]
        printed = ftp_cl("run", *words, f"threads={threads}")[1]
        assert (f"threads={threads} are more than the 2 cores" in printed) == told
    torch.set_num_threads(1)


def test_same_seed_same_numbers_other_seed_others(quick_run):
    first, again, other = (
        quick_run("method=ftp", f"seed={seed}", out=out) for seed, out in ((1, "a"), (1, "b"), (2, "c"))
    )
    assert first["accuracy_matrix"] == again["accuracy_matrix"]
    assert first["projection"] == again["projection"]
    assert first["accuracy_matrix"] != other["accuracy_matrix"]


def test_learning_rates_reach_their_parameters(quick_run):
    frozen = quick_run("method=naive", "optimizer.backbone_lr=1e-12", "benchmark.n_experiences=1", out="a")
    probe = quick_run("method=linear_probe", "benchmark.n_experiences=1", out="b")
    assert frozen["accuracy_matrix"] == probe["accuracy_matrix"]


def test_one_experience_has_no_forgetting(quick_run):
    result = quick_run("benchmark.n_experiences=1", "eval.ood_every=never")
    assert result["average_forgetting"] is None and result["backward_transfer"] is None
    assert result["ood"] == {} and result["ood_average"] is None


def test_ood_streams_can_be_evaluated_after_each_experience(quick_run, tmp_path):
    result = quick_run("eval.ood_every=experience")
    events = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [event["experience"] for event in events if event.get("stream") == "ood_inverted"]
    assert evaluated == [0, 1, 2, 3, 4] and result["ood"].keys() == {"ood_inverted"}


def test_task_labels_go_through(quick_run):
    result = quick_run("+benchmark.return_task_id=true")
    assert len(result["accuracy_matrix"]) == 5 and result["ood"].keys() == {"ood_inverted"}


def test_validation_stream_can_stand_in_for_the_test_stream(quick_run):
    test = quick_run("seed=3", out="a")
    validation = quick_run("seed=3", "eval.stream=validation", out="b")
    assert test["accuracy_matrix"] != validation["accuracy_matrix"]


def test_a_method_that_cannot_run_here_says_what_it_needs(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "quadprog", None)
    assert "pip install 'ftp-cl[gem]'" in refused("run", "method=gem", "benchmark=split_digits", "model=small_cnn")


@pytest.mark.parametrize("method", ["lda", "ncm", "ftp_lda"])
@pytest.mark.parametrize("features", ["first", "all"])
def test_prototypes_on_adapted_features_learn_later_experiences_too(quick_run, method, features):
    drift = str(features == "all").lower()
    result = quick_run(
        f"method={method}", f"method.features={features}", f"method.drift={drift}", "benchmark.n_experiences=2"
    )
    matrix = np.array(result["accuracy_matrix"])
    assert matrix[0, 0] > 60 and matrix[1, 1] > 50


def test_joint_training_gives_equal_rows_and_is_no_worse_than_one_by_one(quick_run):
    joint, naive = (quick_run(f"method={method}", "train.softmax=full", out=method) for method in ("joint", "naive"))
    matrix = np.array(joint["accuracy_matrix"])
    assert (matrix == matrix[0]).all()
    assert joint["average_forgetting"] == 0
    assert joint["average_accuracy"] > naive["average_accuracy"] + 10


def test_every_method_takes_a_warm_up(quick_run):
    without, with_one = (
        quick_run("method=ftp", f"train.warmup={share}", "benchmark.n_experiences=2", out=f"w{share}")
        for share in (0, 0.3)
    )
    assert without["accuracy_matrix"] != with_one["accuracy_matrix"]


OLD_COMBINATIONS = {
    *("ftp_agem", "ftp_der", "ftp_ewc", "ftp_feature_distillation", "ftp_gem", "ftp_lda", "ftp_lda_ensemble"),
    *("ftp_lwf", "ftp_mas", "ftp_ncm", "ftp_ranpac", "ftp_replay", "ftp_si", "ftp_wise_ft", "fixmatch_ftp"),
}


def test_with_ftp_is_the_name_that_a_combination_had_before(ftp_cl):
    def printed(*overrides):
        return ftp_cl("run", "--cfg", "job", *overrides)[1]

    assert {*options_of("method")} >= OLD_COMBINATIONS
    assert printed("method=replay", "with=ftp") == printed("method=ftp_replay")
    assert printed("with=ftp", "method=naive") == printed("method=ftp")
    assert printed("with=null", "method=ewc") == printed("method=ewc")
    changed = printed("method=lda", "with=ftp", "method.features=first", "method.mu=1e-3")
    assert all(line in changed for line in ("name: ftp_lda", "features: first", "drift: true", "mu: 0.001"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["method=linear_probe", "with=ftp"], "makes no sense: it trains nothing that FTP could project"),
        (["method=slda", "with=ftp"], "use method=lda with=ftp"),
        (["method=tpgm", "with=ftp"], "makes no sense: it projects by itself"),
        (["method=mars_pgm", "with=ftp"], "makes no sense: it projects by itself"),
        (["method=ftp", "with=ftp"], "it is FTP already"),
        (["method=ftp_ewc", "with=ftp"], "it is a combination with FTP already"),
        (["method=ewk", "with=ftp"], "method=ewk is unknown; did you mean ewc?"),
        (["model.width=8", "benchmark=true"], "benchmark=true is unknown; there are camvid"),
        (["method=ewc", "with=ftpp"], "with=ftpp is unknown: it must be ftp or null"),
        (["+method._target_=os.system"], "_target_ stands in the files that ship only"),
        (["model.width=8", "model=small_cnn"], "model.width=8 needs a plus sign: +model.width=8."),
        (["method=ftp_lda", "+method.shrinkag=1"], "did you mean method.shrinkage?"),
        (["method.description=mine"], "method.description stands in the files that ship only"),
        (["+method.lambda=3", "method=ewc"], "method.lambda is no key of method=ewc"),
        (["+benchmark.validation_fractio=0.3"], "did you mean benchmark.validation_fraction?"),
        (["+model.width=x", "model=small_cnn"], "model.width=x is wrong: it must be a whole number"),
    ],
)
def test_what_cannot_be_combined_or_added_is_refused_in_one_sentence(refused, overrides, sentence):
    assert sentence in refused("run", "--cfg", "job", *overrides)


def test_list_and_refusals_import_neither_torch_nor_avalanche():
    code = (
        "import sys; from ftp_cl.cli import main; main(['list']); main(['run', '--cfg', 'job']); "
        "main(['run', 'method.kk=1']); assert not {'torch', 'avalanche'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_choice_names_code_that_is_there():
    for group in ("benchmark", "model", "method"):
        for name in names(group):
            if target := entry(group, name).target:
                assert callable(get_object(target)), (group, name)
