"""How an iteration is carried out: a run equals a loop written by hand, in each precision."""

import functools
import json
import sys
import types
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, one_hot
from transformers.modeling_outputs import SequenceClassifierOutput

from ftp_cl.models import pretrained
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.engine import Engine, _to_float
from ftp_cl.runs.optimizer import build_optimizer
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
            cross_entropy(model.head(features.float()), labels).backward()
            optimizer.step()
        weights = model.state_dict()
    return weights


PLAIN = ("method=naive", "train.softmax=full", "train.schedule=constant", "train.freeze_batch_norm=false")


@pytest.mark.parametrize(("precision", "dtype"), [("null", None), ("bf16-mixed", torch.bfloat16)])
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
    _, watched = trained("method=ewc", "+benchmark.shots=26", "precision=fp16-mixed")
    assert watched.dtypes == {torch.float16, torch.float32}


def test_workers_give_the_same_batches_whatever_their_number(trained):
    options = ("method=replay", "train.augmentation=shift", "train.epochs=2", "eval.ood_every=never")
    one, watched = trained(*options, "loader.workers=1")
    two, _ = trained(*options, "loader.workers=2")
    assert all(torch.equal(one[name], two[name]) for name in one)
    images = [image.numpy().tobytes() for batch, _ in watched.batches[0] for image in batch]
    first, second = set(images[: len(images) // 2]), set(images[len(images) // 2 :])
    assert len(first & second) < len(first) / 2  # of nine possible views, one is chance


def test_workers_give_the_same_unlabelled_views_whatever_their_number(trained):
    options = ("method=fixmatch", "method.ratio=1", "labels.per_class=20", "train.epochs=2", "eval.ood_every=never")
    none, one, two = (trained(*options, f"loader.workers={number}")[0] for number in (0, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], none[name]) for name in one)


def test_without_random_views_workers_change_nothing_in_evaluation(trained, tmp_path):
    trained("method=lda", "loader.workers=2")
    trained("method=lda")
    one, two = (json.loads((tmp_path / str(i) / "result.json").read_text())["accuracy_matrix"] for i in (0, 1))
    assert one == two


@pytest.mark.parametrize("options", [["method=ewc"], ["method=replay", "train.softmax=separated"]])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(trained, options):
    """SGD, so that rounding stays rounding; the last batch, of 23 or so, is no multiple of 3."""
    options = [*options, "optimizer.name=sgd", "optimizer.lr=0.01"]
    whole, parts = (trained(*options, f"train.accumulate={n}")[0] for n in (1, 3))
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(parts[name], whole[name]) for name in whole)


def test_gradients_are_clipped_to_the_norm_of_all_together(trained):
    """One step of SGD moves all weights together by the rate times the norm."""
    options = (*PLAIN, "optimizer.name=sgd", "optimizer.lr=0.1", "optimizer.momentum=0", "train.batch_size=2000")
    weights, watched = trained(*options, "train.clip_norm=0.03", "benchmark.n_experiences=1")
    before = watched.models[0].state_dict()
    trainable = [name for name, _ in watched.models[0].named_parameters()]
    moved = sum((weights[name] - before[name]).square().sum() for name in trainable).sqrt()
    torch.testing.assert_close(moved.item(), 0.1 * 0.03, rtol=1e-3, atol=0)


def test_mixup_is_the_loss_of_mixed_images_for_both_labels():
    engine = Engine(load_config(["train.mixup=0.4"]), torch.device("cpu"), print)
    images, labels = torch.rand(5, 3), torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(1)
    (batch,) = [list(part) for part in engine.parts([images, labels], 5) if engine._kept is not None]
    torch.manual_seed(1)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    torch.testing.assert_close(batch[0], share * images + (1 - share) * images[[4, 0, 1, 2, 3]])
    parts = engine.parts([images, labels], 5)
    strategy = types.SimpleNamespace(mbatch=next(parts))
    logits, share = torch.randn(5, 3), engine._kept
    loss = engine.loss(strategy, lambda: cross_entropy(logits, strategy.mbatch[1]))
    soft = share * one_hot(labels, 3) + (1 - share) * one_hot(labels[[4, 0, 1, 2, 3]], 3)
    torch.testing.assert_close(loss, cross_entropy(logits, soft))
    assert torch.equal(strategy.mbatch[1], labels)


def test_mixup_of_a_batch_in_parts_is_that_of_the_whole():
    images, labels, net = torch.rand(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 2]), torch.nn.Linear(3, 3)
    gradients = []
    for parts in (1, 3):
        engine = Engine(load_config(["train.mixup=0.4", f"train.accumulate={parts}"]), torch.device("cpu"), print)
        net.zero_grad()
        torch.manual_seed(1)
        for part in engine.parts([images, labels], 7):
            strategy = types.SimpleNamespace(mbatch=part)
            logits = net(part[0])
            loss = engine.loss(strategy, lambda logits=logits, of=strategy: cross_entropy(logits, of.mbatch[1]))
            engine.backward(loss, False)
        gradients.append(net.weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_tokens_are_not_mixed():
    engine = Engine(load_config(["train.mixup=0.4"]), torch.device("cpu"), print)
    with pytest.raises(ConfigError, match=r"train\.mixup is for images, and this benchmark gives .*int64"):
        next(engine.parts([torch.tensor([[3, 4]]), torch.tensor([1])], 1))


@pytest.mark.parametrize("backend", ["aot_eager", "none there is"])
def test_a_model_is_compiled_or_the_run_says_once_why_not(trained, monkeypatch, capsys, backend):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    few = ("method=naive", "optimizer.name=sgd", "+benchmark.shots=26")
    weights, _ = trained(*few, "compile=true")
    said = capsys.readouterr().out.count("compile=true is left out, because torch cannot compile this model here")
    assert said == (backend != "aot_eager")
    expected, _ = trained(*few)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def test_layers_have_rates_that_fall_towards_the_images_and_vectors_no_decay():
    """Rates of a ViT of two blocks, as BEiT's recipe counts from the head: block 1 with norm, block 0, embeddings."""
    options = ["model=timm", "model.architecture=vit_tiny_patch16_224", "model.weights=random", "+model.depth=2"]
    keys = ("optimizer.layer_decay=0.5", "optimizer.decay_1d=false", "optimizer.weight_decay=0.1", "optimizer.lr=1.0")
    config = load_config([*options, *keys, "model.head=linear"])
    model = pretrained("vit_tiny_patch16_224", weights="random", depth=2, head="linear")
    optimizer = build_optimizer(config.optimizer, model, prefers_fused=False)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(w)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for w in g["params"]}
    assert found.keys() == set(names.values())
    assert found["backbone.blocks.1.attn.qkv.weight"] == (0.5, 0.1)
    assert found["backbone.blocks.0.mlp.fc1.weight"] == (0.25, 0.1)
    assert found["backbone.blocks.0.mlp.fc1.bias"] == (0.25, 0.0)
    assert found["backbone.patch_embed.proj.weight"] == (0.125, 0.1)
    assert found["backbone.pos_embed"] == (0.125, 0.0) and found["backbone.norm.weight"] == (0.5, 0.0)
    assert found["head.classifier.weight"] == (1.0, 0.1) and found["head.classifier.bias"] == (1.0, 0.0)


def test_the_fused_step_differs_in_rounding_alone(trained):
    expected, _ = trained("method=ftp")
    found, _ = trained("method=ftp", "optimizer.fused=true")
    for weight, value in expected.items():
        torch.testing.assert_close(found[weight], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("prefers_fused", "key", "fused"),
    [(False, "null", None), (False, "true", True), (True, "null", True), (True, "false", None)],
)
def test_a_key_goes_before_what_the_device_prefers(prefers_fused, key, fused):
    options = load_config([f"optimizer.fused={key}"]).optimizer
    assert build_optimizer(options, torch.nn.Linear(2, 2), prefers_fused).defaults["fused"] is fused


def test_memory_may_be_laid_out_or_spared_without_another_outcome(tmp_path):
    options = ["benchmark=split_emoji", "benchmark.size=32", "benchmark.shots=5", "benchmark.ood_domains=[blob]"]
    options += ["model=timm", "model.architecture=test_resnet", "model.weights=random", "optimizer.name=sgd"]
    options += ["train.batch_size=16"]
    weights = []
    for key in ("channels_last=null", "channels_last=true", "gradient_checkpointing=true"):
        config = load_config([*SHORT, *options, f"model.{key}"])
        weights.append(load_file(run(config, tmp_path / key).parent / "weights.safetensors"))
    for other in weights[1:]:
        for name, expected in weights[0].items():
            torch.testing.assert_close(other[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_counts_in_a_pass_counts_when_gradient_checkpointing_makes_it_again(monkeypatch, reentrant):
    """FixMatch's two passes, of a process that has no labelled image, but one that stands in, and two unlabelled."""
    counted = []

    def watch(model, images):
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.register_forward_pre_hook(lambda layer, args: counted.append((len(args[0]), images())))

    monkeypatch.setattr("ftp_cl.runs.engine.count", lambda: 2)
    monkeypatch.setattr("ftp_cl.runs.engine.share", lambda size: slice(1, 1))
    monkeypatch.setattr("ftp_cl.runs.engine.synchronize", watch)
    monkeypatch.setattr("timm.layers.config._USE_REENTRANT_CKPT", reentrant)
    engine = Engine(load_config([]), torch.device("cpu"), print)
    model = pretrained("test_resnet", weights="random", head="linear")
    engine.prepare(model, None, gradient_checkpointing=True)
    engine.is_in_iteration = True
    for part in engine.parts([torch.rand(1, 3, 64, 64), torch.tensor([0])], 1):
        labelled = engine.forward(lambda images=part[0]: model.features(images))
        loss = engine.loss(None, labelled.sum) + model.features(torch.rand(2, 3, 64, 64)).sum()
        first = set(counted)
        counted.clear()
        engine.backward(loss, False)
    assert first == set(counted) == {(1, 0.0), (2, 1.0)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["tf32=true", "device=cpu"], "tf32=true is for NVIDIA's GPUs"),
        (["optimizer.fused=true", "optimizer.name=sgd"], "optimizer.fused=true is for optimizer.name=adamw"),
        (
            ["optimizer.fused=true", "precision=fp16-mixed"],
            "optimizer.fused=true does not go with precision=fp16-mixed",
        ),
        (["optimizer.nesterov=true"], "optimizer.nesterov=true is for optimizer.name=sgd, not adamw"),
        (["optimizer.layer_decay=0.7"], "need a model of timm"),
        (
            ["method=fixmatch", "labels.per_class=4", "train.accumulate=2"],
            "train.accumulate is not for method",
        ),
        (["train.rand_augment=strong"], "of three channels, not of 1"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_a_sentence(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        run(load_config([*SHORT, *options]), tmp_path / "run")


def test_a_precision_that_the_device_lacks_is_refused():
    with pytest.raises(ConfigError, match="precision=bf16-mixed is not for the device meta, which lacks it"):
        Engine(load_config(["precision=bf16-mixed"]), torch.device("meta"), print)


@pytest.mark.parametrize("key", ["precision=fp16-mixed", "loader.workers=1", "train.clip_norm=1"])
def test_a_strategy_with_a_loop_of_its_own_refuses_what_needs_avalanches(tmp_path, key):
    own = "strategy={name: 'my_parts:MyLoop'}"
    with pytest.raises(ConfigError, match=f"{key.split('=')[0]}.* needs Avalanche's training loop, and MyLoop"):
        run(load_config([*SHORT, "method=naive", own, key]), tmp_path / "run")


class Attributes(dict):
    """A dict of a kind of its own, as some models return."""


@pytest.mark.parametrize("kind", [dict, OrderedDict, Attributes, SequenceClassifierOutput])
def test_outputs_in_half_precision_become_float32_whatever_holds_them(kind):
    half = torch.ones(2, dtype=torch.bfloat16)
    output = _to_float(kind(logits=half, loss=half, hidden_states=[half, (half, None)]))
    assert type(output) is kind
    deepest = output["hidden_states"][1]
    assert {t.dtype for t in (output["logits"], output["loss"], output["hidden_states"][0], deepest[0])} == {
        torch.float32
    }
    assert deepest[1] is None
