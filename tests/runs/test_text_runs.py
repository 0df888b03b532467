"""Runs on texts: every method, LoRA, and resuming."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftp_cl.runs.catalogue import names
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.run import run

# gem needs a solver, mib masks
OTHERS = {"own", "gem", "mib", "fixmatch", "flexmatch", "freematch", "mean_teacher", "pseudo_label"}
LORA = "model.lora={rank: 2, alpha: null, targets: [query, value]}"


@pytest.fixture
def words(tiny_bert, text_files):
    """The overrides of a run on four animals in two experiences, with those that are given."""

    def call(*overrides):
        model = [] if "model=own" in overrides else ["model=text", f"model.pretrained={tiny_bert}"]
        return [
            *("benchmark=split_text", f"benchmark.dataset_root={text_files}", "benchmark.n_experiences=2"),
            *(f"benchmark.tokenizer={tiny_bert}", "benchmark.max_length=6", *model),
            *("train.epochs=2", "threads=1", "save_weights=true", *overrides),
        ]

    return call


@pytest.fixture
def start(words, tmp_path):
    """Run; returns the result."""

    def call(*overrides, out="run"):
        return json.loads(run(load_config(words(*overrides)), tmp_path / out).read_text())

    return call


@pytest.mark.parametrize("method", sorted({*names("method")} - OTHERS))
def test_every_method_trains_on_texts(start, method):
    few = ["method.projection_size=500"] if method == "ranpac" else []
    result = start(f"method={method}", "train.epochs=8", *few)
    assert result["accuracy_matrix"][0][0] > 50, "two classes that differ in one word; untrained it is chance"
    assert result["ood"].keys() == {"ood_short"}


@pytest.mark.parametrize("lora", [[], [LORA]])
def test_an_interrupted_run_ends_with_the_same_weights(words, resumed, lora):
    resumed(*words(*lora))


def test_so_does_one_with_frozen_adapters_over_half_precision_which_others_may_start_from(
    words, resumed, start, tiny_bert, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    model = ["model=own", "model.name=my_parts:half_precision_text", f"+model.pretrained={tiny_bert}", "method=ftp"]
    resumed(*words(*model))
    frozen = {name for name in load_file(tmp_path / "cut" / "weights.safetensors") if ".default_1." in name}
    assert len(frozen) == 4
    start(*model, f"+model.start={tmp_path / 'cut'}", out="next")
    weights = load_file(tmp_path / "next" / "weights.safetensors")
    assert frozen < {name for name in weights if ".default_" in name}, "each experience of the second run adds one"


def test_lora_leaves_the_base_as_it_was(start, tmp_path, tiny_bert):
    start(LORA, "method=naive")
    weights, base = load_file(tmp_path / "run" / "weights.safetensors"), load_file(tiny_bert / "model.safetensors")
    query = "encoder.layer.0.attention.self.query"
    assert torch.equal(weights[f"backbone.model.{query}.base_layer.weight"], base[f"{query}.weight"])
    assert weights[f"backbone.model.{query}.lora_B.default.weight"].any()


def test_another_tokenizer_than_the_models_is_refused(start, tiny_bert, tmp_path):
    words = json.loads((tiny_bert / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["red"], vocabulary["cat"] = vocabulary["cat"], vocabulary["red"]
    (tmp_path / "other").mkdir()
    for file in tiny_bert.glob("tokenizer*"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ConfigError, match=r"has other tokens than model\.pretrained"):
        start(f"benchmark.tokenizer={tmp_path / 'other'}")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.lora={rank: 0}", r"model.lora={'rank': 0} is wrong: it must be null, or {rank: 8,"),
        ("model.lora={rnk: 2}", r"model.lora={'rnk': 2} is wrong"),
        ("method=fixmatch", "fixmatch"),
        ("train.augmentation=weak", r"needs images as tensors \[C, H, W\], but .* gives tensors of shape \[6\]"),
    ],
)
def test_keys_that_do_not_fit_texts_are_refused(start, key, message):
    with pytest.raises(ValueError, match=message) as error:
        start(key)
    assert "\n" not in str(error.value)


def test_ftp_bounds_what_lora_learns_in_each_experience_from_no_change(start, tmp_path, tiny_bert):
    """What the first experience learned is in the base weight then."""
    start(LORA, "method=ftp", "optimizer.lr=3e-2")
    weights, base = load_file(tmp_path / "run" / "weights.safetensors"), load_file(tiny_bert / "model.safetensors")
    query = "encoder.layer.0.attention.self.query"
    assert not torch.equal(weights[f"backbone.model.{query}.base_layer.weight"], base[f"{query}.weight"])
    start(LORA, "method=ftp", "method.anchor=initial", out="initial")
    weights = load_file(tmp_path / "initial" / "weights.safetensors")
    assert torch.equal(weights[f"backbone.model.{query}.base_layer.weight"], base[f"{query}.weight"])
