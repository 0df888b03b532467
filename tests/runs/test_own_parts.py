"""A user's own benchmark, model, method, plugins and strategy by import path; repeating a result."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from ftp_cl.benchmarks import split_digits
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.run import run
from ftp_cl.study.loading import load_results
from ftp_cl.study.write import write_report

OWN = [
    *("benchmark=own", "benchmark.name=my_parts:my_benchmark", "+benchmark.n_experiences=2"),
    *("model=own", "model.name=my_parts:MyModel", "+model.width=16"),
    *("method=own", "method.name=my_parts:my_method", "+method.alpha=1.0"),
    *("plugins=[{name: my_parts:MyPlugin, start: 3}]", "train.epochs=1", "train.batch_size=64", "threads=1"),
    "save_weights=true",
]


@pytest.fixture
def own_parts(tmp_path, monkeypatch):
    """The current directory holds a user's module."""
    shutil.copy(Path(__file__).parent / "my_parts.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_parts_run_and_resume(own_parts, resumed):
    """A head of Avalanche that grows at evaluation, and a copy of the model in a plugin, come back too."""
    result = resumed(*OWN)
    assert len(result["accuracy_matrix"]) == 2 and result["benchmark"] == "my_parts:my_benchmark"


@pytest.mark.parametrize(
    ("strategy", "place"),
    [
        ("my_parts:MyStrategy, strength: 0.1", "experience 2, epoch 1, batch 2"),
        ("my_parts:MyLoop, strength: 0.1", "experience 1, trained"),
        pytest.param(  # prepares an experience from its state
            *("avalanche.training:Cumulative", "experience 2, epoch 1, batch 2"), marks=pytest.mark.slow
        ),
    ],
)
def test_an_own_strategy_runs_and_resumes(own_parts, resumed, capsys, strategy, place):
    result = resumed(*OWN, f"strategy={{name: {strategy}}}")
    printed = capsys.readouterr().out
    assert f"resumed at {place}" in printed
    assert ("MyLoop has its own training loop" in printed) == ("MyLoop" in strategy)
    plain = json.loads(run(load_config(OWN), own_parts / "plain").read_text())
    assert result["accuracy_matrix"] != plain["accuracy_matrix"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("benchmark.name=my_parts:nothing", "no function or class 'nothing'"),
        ("benchmark.name=no_such_module:f", "no_such_module"),
        ("benchmark.name=.my_parts:my_benchmark", "cannot be imported: TypeError"),
        ("model.name=broken:f", "cannot be imported: SyntaxError"),
        ("+benchmark.n_experience=5", "did you mean n_experiences?"),
        ("+model.widht=3", "did you mean width?"),
        ("plugins=[{name: my_parts:MyPlugin, begin: 3}]", "begin is unknown"),
        ("plugins=[MyPlugin]", "a list such as"),
        ("~model.width", "missing a required argument: 'width'"),
        ("strategy=my_parts:MyStrategy", "{name: my_module:MyStrategy, option: 1}"),
        ("strategy={name: my_parts:MyStrateg}", "no function or class 'MyStrateg'"),
        ("strategy={name: my_parts:MyModel}", "made from Avalanche's SupervisedTemplate"),
        ("strategy={name: my_parts:MyStrategy, strenght: 1}", "did you mean strength?"),
        ("strategy={name: my_parts:MyStrategy, train_epochs: 1}", "set by another key"),
        ("loggers=[tensorbord]", "tensorboard, wandb, mlflow"),
    ],
)
def test_a_wrong_path_or_option_is_named(refused, own_parts, word, told):
    (own_parts / "broken.py").write_text("def f(:")
    assert told in refused("run", *OWN, word, "out=run")


@pytest.mark.parametrize("name", ["SavingPlugin", "SavingPluginWithStrategy", "SavingPluginOfEarlierNames"])
def test_a_plugin_that_saves_itself_resumes_to_the_same_weights(own_parts, resumed, capsys, name):
    resumed(*OWN, f"plugins=[{{name: my_parts:{name}}}]")
    assert "resumed at experience 2, epoch 1, batch 2" in capsys.readouterr().out


def test_a_plugin_that_cannot_be_saved_leaves_checkpoints_between_experiences(own_parts, capsys):
    run(
        load_config([*OWN, "plugins=[{name: my_parts:UnsavablePlugin}]", "checkpoint.every_iterations=2"]),
        own_parts / "run",
    )
    printed = capsys.readouterr().out
    assert printed.count("between experiences only") == 1 and "UnsavablePlugin.counter is a generator" in printed


def test_a_result_is_repeated_from_its_file(ftp_cl, refused, quick_run, tmp_path):
    result = quick_run("method=ftp", "benchmark.n_experiences=2", "deterministic=true")
    assert ftp_cl("run", "--from", "run/result.json", "out=again")[0] == 0
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["accuracy_matrix"] == result["accuracy_matrix"] and again["projection"] == result["projection"]
    (tmp_path / "other.json").write_text("{}")
    assert "holds no configuration" in refused("run", "--from", "other.json")
    for words, told in (
        (["sed=1"], "did you mean seed?"),
        (["method=naive"], "single keys, such as method.name"),
        (["train.epoch=2"], "did you mean train.epochs?"),
        (["method.name=naive"], "method.k is no key of method=naive"),
        (["seed=${sed}"], "'sed' not found"),
    ):
        assert told in refused("run", "--from", "run/result.json", *words)


@pytest.fixture
def stranger(tmp_path):
    """Writes a result.json whose configuration has these values, too."""
    config = OmegaConf.to_container(load_config(["benchmark=split_digits", "model=small_cnn", "method=naive"]))

    def write(**values):
        (tmp_path / "result.json").write_text(json.dumps({"config": {**config, **values}}))

    return write


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"plugins": [{"name": "os:system", "command": "touch ran"}]}, "plugins.name=os:system"),
        ({"model": {"name": "subprocess:call", "args": "touch ran"}}, "model.name=subprocess:call"),
        ({"benchmark": {"name": "os:system", "command": "touch ran"}}, "benchmark.name=os:system"),
        ({"method": {"name": "os:system"}}, "method.name=os:system"),
        ({"strategy": {"name": "os:system"}}, "strategy.name=os:system"),
    ],
)
def test_code_that_a_result_names_is_run_with_trust_only(ftp_cl, refused, stranger, tmp_path, values, named):
    stranger(**values)
    error = refused("run", "--from", "result.json", "out=run")
    assert named in error and "--trust" in error
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()
    status, _, error = ftp_cl("run", "--from", "result.json", "--trust", "--cfg", "job")
    assert status == 0, error
    assert "goes with --from" in refused("run", "--trust", "benchmark=split_digits")


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "\\${oc.env:SECRET}", "${oc.env:SECRET", "$${a}\\"])
def test_recorded_values_stay_text(ftp_cl, stranger, tmp_path, monkeypatch, text):
    monkeypatch.setenv("SECRET", "hunter2")
    stranger(label=text, benchmark={"name": "split_digits", "n_experiences": 1})
    told = []
    monkeypatch.setattr("ftp_cl.runs.run._run", lambda config, *_: told.append(config.label) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ftp_cl("run", "--from", "result.json", "out=run")
    assert told == [text]
    assert "hunter2" not in str(ftp_cl("run", "--from", "result.json", "label='${label}!'", "--cfg", "job"))


def test_repeated_runs_that_differ_have_directories_of_their_own(ftp_cl, tmp_path):
    quick = ["benchmark=split_digits", "model=small_cnn", "method=naive", "train.epochs=1", "threads=1"]
    assert ftp_cl("run", *quick, "+benchmark.shots=4", "out=run")[0] == 0
    for seed in (1, 2):
        assert ftp_cl("run", "--from", "run/result.json", f"seed={seed}")[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run-again,seed=1", "run-again,seed=2"]


STREAM = [
    *("benchmark=own", "model=small_cnn", "method=naive", "train.softmax=full", "threads=1", "save_weights=true"),
    *("train.epochs=3", "train.batch_size=16"),
]


@pytest.mark.parametrize("order", [[0, 1, 2, 0], [2, 1, 0], [2, 0]])
def test_a_stream_in_any_order_has_a_row_for_each_training(own_parts, order):
    words = [*STREAM, "benchmark.name=my_parts:in_order", f"+benchmark.order={order}"]
    result = json.loads(run(load_config(words), own_parts / "run").read_text())
    matrix = np.array(result["accuracy_matrix"])
    assert matrix.shape == (len(order), 5)
    seen = sorted(set(order))
    first = [order.index(number) for number in seen]
    assert result["first_rows"] == [order.index(j) if j in order else None for j in range(5)]
    assert (matrix[first, seen] > 60).all(), "each is learned just after it was trained on"
    assert result["learning_accuracy"] == pytest.approx(matrix[first, seen].mean())
    assert result["average_accuracy"] == pytest.approx(matrix[-1, seen].mean())
    assert len(result["classes_per_experience"]) == len(order)
    (read,) = load_results([own_parts / "run"])
    # The images are the same, inverted, so that a class has the same weight on both sides.
    sizes = [len(experience.dataset) for experience in split_digits(5, seed=0).test_stream]
    id_accuracy = np.average(matrix[-1, seen], weights=np.array(sizes)[seen])
    assert read.relative_robustness == pytest.approx(result["ood"]["ood_inverted"] / id_accuracy, abs=1e-6)


def test_columns_are_in_the_order_of_experiences_whatever_their_tasks(own_parts):
    words = [*STREAM, "benchmark.name=my_parts:tasks_in_turns"]
    result = json.loads(run(load_config(words), own_parts / "run").read_text())
    matrix = np.array(result["accuracy_matrix"])
    right = matrix * [10, 20, 30, 40] / 100
    assert np.allclose(right, right.round(), atol=1e-4), "each column belongs to the test set of its size"
    assert (np.diag(matrix) > 60).all() and matrix[0, 1:].max() == 0


def test_one_test_set_for_all_of_training_has_one_column(own_parts):
    words = [*STREAM, "benchmark.name=my_parts:one_test_set"]
    result = json.loads(run(load_config(words), own_parts / "run").read_text())
    column = np.array(result["accuracy_matrix"])[:, 0]
    assert len(column) == 3 and result["average_incremental_accuracy"] == pytest.approx(column.mean())
    assert result["backward_transfer"] == pytest.approx(column[2] - column[0])
    write_report([own_parts / "run"], own_parts / "report")


def test_a_stream_in_which_an_experience_comes_again_resumes(own_parts, resumed):
    result = resumed(*STREAM, "benchmark.name=my_parts:in_order", "+benchmark.order=[0,0,1]")
    assert len(result["accuracy_matrix"]) == 3


def test_a_test_stream_that_is_never_trained_on_is_refused_before_training(own_parts):
    words = [*STREAM, "benchmark.name=my_parts:in_order", "+benchmark.order=[0]", "eval.stream=elsewhere"]
    with pytest.raises(ConfigError, match=r"eval\.stream"):
        run(load_config(words), own_parts / "run")
