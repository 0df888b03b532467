"""`ftp-cl evaluate`: a finished run's weights on streams of a benchmark."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ftp_cl.runs.config import ConfigError, load_config, plain
from ftp_cl.runs.evaluate import _check_classes, _configuration

DIGITS = [
    "benchmark=split_digits",
    "model=small_cnn",
    "train.epochs=1",
    "train.batch_size=64",
    "benchmark.n_experiences=2",
]


def test_the_weights_of_a_run_reach_what_the_run_measured_at_its_end(ftp_cl, tmp_path):
    """On its own benchmark, whose keys are the run's: images of 12 pixels here, and two experiences."""
    assert ftp_cl("run", *DIGITS, "+benchmark.size=12", "method=naive", "save_weights=true", "out=first")[0] == 0
    result = json.loads((tmp_path / "first" / "result.json").read_text())
    status, output, error = ftp_cl("evaluate", "first", "--json", "numbers.json")
    assert status == 0, error
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers.keys() == {"test", *result["ood"]} and "test " in output
    assert {name: numbers[name] for name in result["ood"]} == pytest.approx(result["ood"], abs=1e-5)
    sizes, last = result["data"]["stream_sizes"]["test"], result["accuracy_matrix"][-1]
    mean = sum(size * accuracy for size, accuracy in zip(sizes, last, strict=True)) / sum(sizes)
    assert numbers["test"] == pytest.approx(mean, abs=1e-5)
    assert _configuration(tmp_path / "first", ["+benchmark.size=10"]).benchmark.size == 10
    assert "size" not in _configuration(tmp_path / "first", ["benchmark=split_digits"]).benchmark


def test_a_directory_may_be_named_by_overrides(tmp_path):
    run = tmp_path / "benchmark=split_digits,method=ftp it's"
    run.mkdir()
    (run / "result.json").write_text(json.dumps({"config": plain(load_config(DIGITS))}))
    assert _configuration(run, []).model.start == str(run)


def test_a_part_of_a_key_that_is_given_is_not_that_of_the_run():
    words = ["benchmark=mask_folder", "benchmark.dataset_root=/d", "+benchmark.colours.road=[1,2,3]"]
    recorded = {"dataset_root": "/old", "colours": {"road": [0, 0, 0]}}
    assert load_config(words, recorded).benchmark.colours == {"road": [1, 2, 3]}


def test_of_a_strangers_run_no_code_is_run_and_no_interpolation_read(tmp_path):
    config = plain(load_config(DIGITS))
    config["benchmark"] |= {"name": "os:getcwd"}
    (tmp_path / "result.json").write_text(json.dumps({"config": config}))
    with pytest.raises(ConfigError, match=r"runs code which it names: add benchmark=own benchmark\.name=os:getcwd if"):
        _configuration(tmp_path, [])
    assert _configuration(tmp_path, ["benchmark=emoji_styles"]).benchmark.name == "emoji_styles"
    folder = plain(load_config(["benchmark=image_folder", "benchmark.dataset_root=/d"]))
    folder["benchmark"]["dataset_root"] = "${oc.env:HOME}"
    folder["eval"]["ood_classes"] = "own"
    (tmp_path / "result.json").write_text(json.dumps({"config": folder}))
    config = _configuration(tmp_path, ["seed=7"])
    assert config.benchmark.dataset_root == "${oc.env:HOME}" and (config.eval.ood_classes, config.seed) == ("own", 7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=naive"], "first has no weights.safetensors: repeat it with ftp-cl run --from"),
        (["method=ncm", "save_weights=true"], "method=ncm, whose statistics are not in its weights"),
    ],
)
def test_a_run_that_cannot_be_evaluated_says_why(words, said, ftp_cl, refused):
    assert ftp_cl("run", *DIGITS, *words, "out=first")[0] == 0
    assert said in refused("evaluate", "first")


def test_what_is_no_finished_run_is_named(refused, tmp_path):
    (tmp_path / "runs").mkdir()
    assert "There is no runs/result.json, which each finished run has." in refused("evaluate", "runs")
    assert "There is no first/result.json" in refused("run", *DIGITS, "model.start=first")


def test_classes_that_a_run_lacks_are_told_and_none_in_common_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors", {"classes": json.dumps(["cat", None, "dog"])})
    said, run = [], str(tmp_path)
    _check_classes(run, {"cat", "dog"}, said.append)
    assert not said
    _check_classes(run, {"cat", "cow", "hen"}, said.append)
    assert said[0].endswith("classes; it lacks 'cow' and 1 more, whose images count as wrong.")
    with pytest.raises(ConfigError, match=r"none of the .* classes; it lacks 'cow', for instance, and has 'cat'"):
        _check_classes(run, {"cow"}, said.append)
