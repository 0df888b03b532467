"""How an iteration is carried out: a run equals a loop written by hand, in each precision."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.engine import Engine
from ftp_cl.runs.run import run

SHORT = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "model=small_cnn", "train.epochs=1"),
    *("train.batch_size=64", "threads=1", "save_weights=true"),
]
WATCHED = "plugins=[{name: 'my_parts:Watch'}]"


@pytest.fixture(autouse=True)
def my_parts(monkeypatch):
    """A user's module can be imported."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def trained(tmp_path):
    """Run; returns the final weights and what `Watch` has seen."""

    def train(*overrides):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        run(load_config([*SHORT, WATCHED, *overrides]), directory)
        return load_file(directory / "weights.safetensors"), sys.modules["my_parts"].Watch.last

    return train


def by_hand(watched, dtype=None):
    """Final weights of plain fine-tuning on the batches that a run had, with a constant rate of 3e-3."""
    weights = {}
    for model, batches in zip(watched.models, watched.batches, strict=True):
        model.load_state_dict({**model.state_dict(), **{k: v for k, v in weights.items() if "head" not in k}})
        model.backbone.__class__ = next(
            kind for kind in type(model.backbone).__mro__ if kind.__module__ != "ftp_cl.runs.engine"
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        for images, labels in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                features = model.features(images)
            torch.nn.functional.cross_entropy(model.head(features.float()), labels).backward()
            optimizer.step()
        weights = model.state_dict()
    return weights


PLAIN = ("method=naive", "train.softmax=full", "train.schedule=constant", "train.freeze_batch_norm=false")


@pytest.mark.parametrize(("precision", "dtype"), [("32", None), ("bf16-mixed", torch.bfloat16)])
def test_a_run_is_the_loop_written_by_hand(trained, precision, dtype):
    weights, watched = trained(*PLAIN, f"precision={precision}")
    for name, expected in by_hand(watched, dtype).items():
        assert torch.equal(weights[name], expected), name
    assert watched.dtypes == {dtype or torch.float32}


@pytest.mark.parametrize("method", ["lda", "fixmatch"])
def test_every_pass_is_in_the_precision_that_is_asked_for(trained, method):
    weights, watched = trained(f"method={method}", "labels.per_class=20", "precision=bf16-mixed")
    assert watched.dtypes == {torch.bfloat16}
    assert {weight.dtype for weight in weights.values() if weight.is_floating_point()} <= {torch.float32, torch.float64}


def test_gradients_in_float16_are_scaled_in_training_and_in_float32_elsewhere(trained):
    exact, _ = trained(*PLAIN)
    weights, watched = trained(*PLAIN, "precision=fp16-mixed")
    difference = sum((weights[name] - exact[name]).float().square().sum() for name in exact)
    assert 0 < difference < 0.01 * sum(value.float().square().sum() for value in exact.values())
    assert watched.dtypes == {torch.float16}
    assert trained("method=ewc", "precision=fp16-mixed")[1].dtypes == {torch.float16, torch.float32}


def test_workers_give_the_same_batches_whatever_their_number(trained):
    options = ("method=replay", "train.augmentation=shift", "train.epochs=2")
    one, watched = trained(*options, "loader.workers=1")
    two, _ = trained(*options, "loader.workers=2")
    assert all(torch.equal(one[name], two[name]) for name in one)
    images = [image.numpy().tobytes() for batch, _ in watched.batches[0] for image in batch]
    first, second = set(images[: len(images) // 2]), set(images[len(images) // 2 :])
    assert len(first & second) < len(first) / 2  # of nine possible views, one is chance


def test_without_random_views_workers_change_nothing_in_evaluation(trained, tmp_path):
    trained("method=lda", "loader.workers=2")
    trained("method=lda")
    one, two = (json.loads((tmp_path / str(i) / "result.json").read_text())["accuracy_matrix"] for i in (0, 1))
    assert one == two


def test_a_precision_that_the_device_lacks_is_refused():
    with pytest.raises(ConfigError, match="precision=bf16-mixed is not for the device meta, which lacks it"):
        Engine(load_config(["precision=bf16-mixed"]), torch.device("meta"))


@pytest.mark.parametrize("key", ["precision=fp16-mixed", "loader.workers=1"])
def test_a_strategy_with_a_loop_of_its_own_refuses_what_needs_avalanches(tmp_path, key):
    own = "strategy={name: 'my_parts:MyLoop'}"
    with pytest.raises(ConfigError, match=f"{key.split('=')[0]}.* needs Avalanche's training loop, and MyLoop"):
        run(load_config([*SHORT, "method=naive", own, key]), tmp_path / "run")
