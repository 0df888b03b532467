"""What a run leaves to its model: revision of the weights, and how the images of all its streams are made."""

import hashlib
import json

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from ftp_cl.runs import model_keys
from ftp_cl.runs.config import load_config, load_repeated, plain
from ftp_cl.runs.data import benchmark_of
from ftp_cl.runs.engine import MODEL_KEYS
from ftp_cl.runs.model_keys import with_models_keys

VIT = ["model=timm", "model.architecture=test_vit.r160_in1k", "model.weights=random"]
NOWHERE = ["benchmark=image_folder", "benchmark.dataset_root=nowhere"]
RESNET = ["model=timm", "model.architecture=test_resnet.r160_in1k", "model.weights=random"]


def resolved(*words):
    return with_models_keys(load_config(words))


def test_the_models_own_preprocessing_is_the_default_and_stands_in_the_configuration():
    config = resolved(*VIT)
    assert config.benchmark.size == 160
    assert {key: value for key, value in plain(config.model).items() if key not in MODEL_KEYS} == {
        **{"name": "timm", "architecture": "test_vit.r160_in1k", "weights": "random", "revision": None, "lora": None},
        **{"head": "cosine", "interpolation": "bicubic", "crop": 0.95, "crop_mode": "center"},
        **{"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    assert with_models_keys(config) == config


@pytest.mark.parametrize(
    ("words", "size", "img_size"),
    [
        ([*VIT, "benchmark.size=64"], 64, 64),  # the default of the benchmark, but given
        ([*VIT, "benchmark.size=96"], 96, 96),
        ([*VIT, "+model.img_size=96"], 96, 96),
        ([*RESNET, "benchmark.size=96"], 96, None),
        ([*RESNET, *NOWHERE], 160, None),
    ],
)
def test_a_size_that_is_given_is_kept_and_a_model_of_one_size_is_built_for_it(words, size, img_size):
    config = resolved(*words)
    assert config.benchmark.size == size and config.model.get("img_size") == img_size


def test_keys_override_the_model():
    config = resolved(*VIT, "model.interpolation=bilinear", "model.crop=1.0", "model.mean=[0,0,0]")
    assert (config.model.interpolation, config.model.crop, config.model.mean) == ("bilinear", 1.0, [0, 0, 0])
    assert config.model.std == [0.5] * 3


def test_packaged_models_and_earlier_results_have_the_preprocessing_that_they_had(tmp_path):
    packaged = load_config([])
    assert packaged.benchmark.size == 64 and with_models_keys(packaged) is packaged
    before = plain(load_config([*VIT, "benchmark.size=64"]))
    before["model"] = {
        "name": "timm",
        "architecture": "test_vit",
        "weights": "random",
        "head": "cosine",
        "img_size": 64,
    }
    (tmp_path / "result.json").write_text(json.dumps({"config": before}))
    again = load_repeated(tmp_path / "result.json", [])
    assert with_models_keys(again) is again and again.benchmark.size == 64
    assert model_keys.with_preprocessing(plain(again.benchmark), again)["size"] == 64


def test_the_commit_of_the_weights_stands_in_the_configuration(monkeypatch):
    monkeypatch.setattr(model_keys, "hub_weights", lambda name, revision: (None, f"commit of {name} at {revision}"))
    config = resolved("model=timm", "model.architecture=test_vit", "model.revision=v1")
    assert config.model.revision == "commit of test_vit at v1"


def test_data_that_is_missing_is_told_before_the_hub_is_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_keys, "hub_weights", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.train.* is missing"):
        resolved("model=timm", "model.architecture=test_vit", *NOWHERE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*VIT, "benchmark.size=64", "+model.img_size=96"], "benchmark.size=64 and model.img_size=96 differ"),
        ([*VIT, "benchmark=split_digits", "model.crop=1"], "model.crop has no effect: benchmark=split_digits makes"),
        (["benchmark.size=null"], "benchmark.size=null is the size .* and model=efficientnet_lite0 says none"),
        ([*VIT, "model.interpolation=cubic"], "must be nearest, bilinear, bicubic, lanczos or null"),
        ([*VIT, "model.crop=0"], "must be null or a share, above 0"),
        ([*VIT, "model.mean=[1]"], "must be three numbers"),
    ],
)
def test_keys_that_do_not_fit_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        resolved(*words)


def test_a_model_of_an_earlier_run_may_see_images_that_a_benchmark_makes_itself(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"config": plain(resolved(*VIT, "model.mean=[0,0,0]"))}))
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors", {"classes": "[]"})
    config = resolved(f"model.start={tmp_path}", "benchmark=split_digits")
    assert (config.model.interpolation, config.model.crop, config.model.mean) == (None, None, [0, 0, 0])
    assert model_keys.with_preprocessing(plain(config.benchmark), config) == plain(config.benchmark)
    assert with_models_keys(config) == config


@pytest.fixture
def folder(tmp_path):
    """Images of 90 x 61 pixels of two classes, with an OOD part."""
    random = np.random.default_rng(0)
    for part in ("train", "test", "ood_night"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                image = Image.fromarray(random.integers(0, 256, (61, 90, 3), np.uint8))
                image.save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def digest(pixels):
    return hashlib.sha256(pixels.tobytes()).hexdigest()


FOLDER = ["benchmark=image_folder", "benchmark.size=40", "benchmark.validation_fraction=0.25"]


def test_all_streams_have_the_images_that_the_model_asks_for(folder):
    config = resolved(*VIT, *FOLDER, f"benchmark.dataset_root={folder}", "labels.per_class=2")
    benchmark, _ = benchmark_of(config)
    assert {"train", "test", "validation", "unlabelled", "ood_night"} <= set(benchmark.streams)
    made = {}
    for path in folder.rglob("*.png"):
        # floor(40 / 0.95) = 42; 90 * 42 / 61 = 61.97
        image = Image.open(path).resize((61, 42), Image.Resampling.BICUBIC).crop((10, 1, 50, 41))
        made[digest(np.asarray(image))] = path.relative_to(folder).parts[0]
    for name, stream in benchmark.streams.items():
        image = stream[0].dataset[0][0]
        pixels = (255 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()
        part = made[digest(pixels)]
        assert part == {"validation": "train", "unlabelled": "train"}.get(name, name)
    assert benchmark.description["size"]["interpolation"] == "bicubic"


@pytest.mark.slow
def test_a_run_records_the_preprocessing_and_goes_on_after_an_interruption(ftp_cl, tmp_path, folder):
    words = ["run", *RESNET, *FOLDER, f"benchmark.dataset_root={folder}", "train.epochs=1", "method=naive", "out=run"]
    assert ftp_cl(*words)[0] == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["config"]["model"]["interpolation"] == "bilinear" and result["config"]["benchmark"]["size"] == 40
    status, printed, _ = ftp_cl(*words)
    assert status == 0 and "nothing to do" in printed
    assert ftp_cl("run", "--from", "run/result.json", "out=again")[0] == 0
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert (
        again["accuracy_matrix"] == result["accuracy_matrix"] and again["config"]["model"] == result["config"]["model"]
    )
