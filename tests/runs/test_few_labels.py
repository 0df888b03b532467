"""Runs with few labels: what is recorded, and the semi-supervised methods."""

import itertools
import json
import re

import numpy as np
import pytest
import torch

from ftp_cl.benchmarks import few_labels, split_digits
from ftp_cl.runs.catalogue import config_directory, experiment_description
from ftp_cl.runs.config import load_config

SEMI_SUPERVISED = ["labels.fraction=0.5", "benchmark.n_experiences=2", "train.batch_size=32", "method.ratio=1"]


def events(path, kind):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [event for event in lines if event["event"] == kind]


@pytest.mark.parametrize(
    "method",
    [
        "fixmatch_ftp",
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("pseudo_label", "mean_teacher", "fixmatch", "flexmatch", "freematch")
        ),
    ],
)
def test_every_semi_supervised_method_runs_and_learns(quick_run, tmp_path, method):
    # Digits are neither mirrored nor, at 8 pixels, shifted.
    result = quick_run(f"method={method}", *SEMI_SUPERVISED, "train.epochs=2", "method.flip=false", "method.crop=0")
    matrix = np.array(result["accuracy_matrix"])
    assert matrix.shape == (2, 2) and matrix[0, 0] > 60, "five classes: chance is 20 %"
    assert bool(result["projection"]) == (method == "fixmatch_ftp")
    found = events(tmp_path / "run", "pseudo_labels")
    assert [(event["experience"], event["epoch"]) for event in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert result["pseudo_labels"] == [[event["share"], event["precision"]] for event in found]
    for event in found:
        assert event["images"] > 0 and 0 <= event["share"] <= 100
        assert event["precision"] > 60 if event["share"] > 50 else True


def test_the_labelled_images_are_recorded_by_index(quick_run):
    result = quick_run("method=naive", "labels.per_class=3", "benchmark.n_experiences=2", "seed=5")
    expected = few_labels(split_digits(2, seed=5), per_class=3, seed=5).description
    assert result["data"]["labels"] == expected["labels"]
    assert result["data"]["stream_sizes"]["train"] == [15, 15]
    assert result["config"]["labels"] == {
        "per_class": 3, "fraction": None, "allow_fewer": None, "unlabelled": None
    }  # fmt: skip


def test_unlabelled_images_may_be_of_another_kind(quick_run, tmp_path):
    result = quick_run(
        "method=pseudo_label", "labels.per_class=3", "+labels.unlabelled.shots=10", "benchmark.n_experiences=2"
    )
    assert result["data"]["labels"]["unlabelled"]["shots"] == 10
    assert result["data"]["stream_sizes"]["unlabelled"] == [50, 50]
    assert len(events(tmp_path / "run", "pseudo_labels")) == 2


OWN = """
from ftp_cl.benchmarks import few_labels, split_digits

def whole(seed, shots=None):
    return split_digits(2, seed, shots=shots)

def unlabelled(seed):
    return few_labels(whole(seed), per_class=4, seed=seed)
"""


def test_an_own_benchmark_may_bring_images_that_nobody_has_labelled(quick_run, tmp_path):
    (tmp_path / "own_labels.py").write_text(OWN)
    quick_run("method=fixmatch", "benchmark=own", "benchmark.name=own_labels:unlabelled", "method.ratio=1")
    found = events(tmp_path / "run", "pseudo_labels")
    assert len(found) == 2 and all(event["images"] > 0 and event["precision"] is None for event in found)


def test_an_own_benchmark_with_other_keys_may_give_the_unlabelled_images(quick_run, tmp_path):
    (tmp_path / "own_labels.py").write_text(OWN)
    own = ["benchmark=own", "benchmark.name=own_labels:whole", "+labels.unlabelled.shots=10", "labels.per_class=4"]
    result = quick_run("method=fixmatch", *own, "method.ratio=1")
    assert result["data"]["stream_sizes"]["unlabelled"] == [50, 50]


# ---- hidden labels -------------------------------------------------------------------------------------------------


def numbers(value):
    """What a sequence, an array or a tensor holds, as far as it may be labels."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.tolist() if value.ndim == 1 else []
    return [part for part in value if isinstance(part, int)] if isinstance(value, (list, tuple)) else None


@pytest.mark.parametrize("other_images", [False, True])
def test_no_hidden_label_can_be_reached_from_the_strategy(quick_run, reachable, monkeypatch, other_images):
    from ftp_cl.runs import data, loop
    from ftp_cl.runs.checkpoints import Checkpoints

    kept, walks = {}, []
    keep_few_labels, judge, iteration_done = data.keep_few_labels, loop.judged_pseudo_labels, Checkpoints.iteration_done

    def keeping(build, *arguments):
        whole = []
        few, hidden = keep_few_labels(lambda changes: whole.append(build(changes)) or whole[-1], *arguments)
        datasets = [experience.dataset for benchmark in whole for experience in benchmark.train_stream]
        kept["few"] = few
        kept["hidden"], kept["sources"] = hidden, [dataset._flat_data._datasets[0] for dataset in datasets]
        kept["secrets"] = [*hidden, [*itertools.chain(*hidden)], *(list(dataset.targets) for dataset in datasets)]
        return few, hidden

    def walk(strategy, experience):
        found = reachable(strategy)
        assert len(found) > 1000, "the walk itself must work"
        assert any(node is kept["few"] for node in found)
        assert not any(node is source for node in found for source in kept["sources"])
        assert not any(numbers(node) in kept["secrets"] for node in found)
        walks.append(experience)

    def judging(record, hidden, strategy, experience):
        epochs = judge(record, hidden, strategy, experience)
        walk(strategy, experience)
        return epochs

    def between_iterations(self, strategy, *arguments):
        iteration_done(self, strategy, *arguments)
        if strategy.clock.train_exp_iterations == 2:
            walk(strategy, strategy.experience.current_experience)

    monkeypatch.setattr(data, "keep_few_labels", keeping)
    monkeypatch.setattr(loop, "judged_pseudo_labels", judging)
    monkeypatch.setattr(Checkpoints, "iteration_done", between_iterations)
    other = ["+labels.unlabelled.shots=12"] if other_images else []
    result = quick_run(
        "method=fixmatch_ftp", "labels.per_class=20", "benchmark.n_experiences=2", "method.ratio=1", *other
    )
    assert walks == [0, 0, 1, 1]
    text = json.dumps(result)
    assert not any(json.dumps(labels) in text for labels in kept["hidden"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["labels.per_class=0"], "labels.per_class=0 is wrong"),
        (["labels.fraction=1"], "labels.fraction=1 is wrong: it must be a number between 0 and 1"),
        (["labels.per_class=1", "labels.fraction=0.1"], "one of them"),
        (["labels.per_class=1000"], "more than the"),
        (["method=fixmatch"], "method=fixmatch needs unlabelled images: labels.per_class=4"),
        (["method=fixmatch", "labels.per_class=4", "method.ratio=0"], "ratio=0"),
        (["+labels.unlabelled.shots=3"], "labels.unlabelled needs labels.per_class"),
        (["labels.allow_fewer=true"], "labels.allow_fewer needs labels.per_class"),
        (["labels.per_class=2", "labels.allow_fewer=2"], "allow_fewer=2 is wrong: it must be true"),
        (["labels.per_class=2", "+labels.unlabelled.shot=3"], "did you mean labels.unlabelled.shots?"),
        (["labels.perclass=2"], "did you mean labels.per_class?"),
    ],
)
def test_a_wrong_word_is_named_with_what_would_be_right(refused, words, told):
    assert told in refused("run", "benchmark=split_digits", "model=small_cnn", *words, "out=run")


EXPERIMENTS = sorted(path.stem for path in (config_directory() / "experiment").glob("few_labels_*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_compose_and_begin_with_their_command(name):
    lines = (config_directory() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert re.match(rf"# ftp-cl run (-m )?\+experiment={name}( |$)", lines[1])
    assert experiment_description(name).endswith(".")
    config = load_config([f"+experiment={name}", "method=fixmatch_ftp"])
    assert "description" not in config
    assert config.train.augmentation == "weak", "the same for all methods"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ftp", "fixmatch_ftp"])
def test_the_emoji_experiment_runs_with_the_pretrained_model(ftp_cl, tmp_path, method):
    status, _, error = ftp_cl(
        "run", "+experiment=few_labels_class_incremental_4", f"method={method}", "labels.per_class=2", "threads=1",
        "train.epochs=1", "train.batch_size=8",
        "benchmark.size=32", "benchmark.n_experiences=2", "benchmark.ood_domains=[line_art]", "out=run",
    )  # fmt: skip
    assert status == 0, error
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert np.array(result["accuracy_matrix"]).shape == (2, 2) and list(result["ood"]) == ["ood_line_art"]
    assert result["data"]["stream_sizes"]["train"] == [20, 20] and result["projection"]
    assert len(events(tmp_path / "run", "pseudo_labels")) == (2 if method == "fixmatch_ftp" else 0)


@pytest.mark.slow
def test_a_sweep_goes_over_methods_labels_and_seeds(ftp_cl, tmp_path):
    status, _, error = ftp_cl(
        "run", "-m", "+experiment=few_labels_cifar100", "labels.per_class=2,4", "method=naive,fixmatch_ftp", "seed=0",
        "train.epochs=1", "benchmark=split_digits", "model=small_cnn", "threads=1",
    )  # fmt: skip
    assert status == 0, error
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    found = sorted((result["method"], result["config"]["labels"]["per_class"]) for result in results)
    assert found == [("fixmatch_ftp", 2), ("fixmatch_ftp", 4), ("naive", 2), ("naive", 4)]
