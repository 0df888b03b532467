"""Runs that begin where another ended, and the files of weights that a run keeps."""

import json

import pytest
import safetensors.torch
import timm
import torch

from ftp_cl.models import CosineHead, LinearDiscriminantHead, LinearHead, TwoBackbones, pretrained
from ftp_cl.models.prototypes import NearestMeanHead, RandomProjectionHead
from ftp_cl.runs.config import load_config, plain
from ftp_cl.runs.directory import RunDirectory
from ftp_cl.runs.engine import MODEL_KEYS
from ftp_cl.runs.start import load_weights, started_model

WITHOUT_MODEL = [
    *("benchmark=split_digits", "benchmark.n_experiences=2", "train.epochs=1", "train.batch_size=64", "method=naive"),
]
DIGITS = [*WITHOUT_MODEL, "model=small_cnn"]


@pytest.mark.parametrize("kind", [CosineHead, LinearHead])
def test_classes_of_a_head_get_other_numbers_and_keep_their_logits(kind):
    head = kind(4)
    head.activate([0, 1, 2])
    features = torch.rand(5, 4)
    before = head(features).detach()
    head.renumber([4, 0, 1])
    after = head(features).detach()
    assert after.shape == (5, 5)
    torch.testing.assert_close(after[:, [4, 0, 1]], before)
    assert head.active_units.tolist() == [1, 1, 0, 0, 1] and (after[:, 2:4] <= -1000).all()
    with pytest.raises(ValueError, match="5 classes need as many different ids"):
        head.renumber([0, 0, 1, 2, 3])


@pytest.mark.parametrize("kind", [NearestMeanHead, LinearDiscriminantHead, RandomProjectionHead])
def test_classes_of_a_head_of_statistics_get_other_numbers_and_keep_their_logits(kind):
    head = kind(4) if kind is not RandomProjectionHead else kind(4, projection_size=30)
    generator = torch.Generator().manual_seed(0)
    features, targets = torch.randn(30, 4, generator=generator), torch.arange(30) % 3
    head.activate([0, 1, 2])
    head.update(features, targets)
    before = head(features)
    head.renumber([4, 0, 1])
    after = head(features)
    torch.testing.assert_close(after[:, [4, 0, 1]], before)
    assert (after[:, 2:4] <= -1000).all()


def test_a_run_goes_on_from_the_weights_and_head_of_another(ftp_cl, tmp_path):
    assert ftp_cl("run", *DIGITS, "save_weights=true", "out=first")[0] == 0
    words = [*WITHOUT_MODEL, "seed=3", "model.start=first", "optimizer.lr=1e-12", "save_weights=true"]
    status, _, error = ftp_cl("run", *words, "out=second")
    assert status == 0, error
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("first", "second"))
    assert second["config"]["model"] == {**first["config"]["model"], "start": "first"}
    assert first["data"]["experiences"] != second["data"]["experiences"]  # other class numbers
    # Nothing is trained: each image is judged as at the end of the first run.
    assert second["average_accuracy"] == pytest.approx(first["average_accuracy"], abs=1)
    metadata = safetensors.safe_open(tmp_path / "second" / "weights.safetensors", "pt").metadata()
    assert sorted(json.loads(metadata["classes"])) == sorted("0123456789")


def test_a_run_without_weights_says_how_to_get_them(ftp_cl, refused):
    assert ftp_cl("run", *DIGITS, "out=first")[0] == 0
    second = ("run", *DIGITS, "model.start=first", "out=second")
    assert "first has no weights.safetensors: repeat it with ftp-cl run --from" in refused(*second)
    assert "model.width=3 contradicts model.start=first" in refused(*second, "+model.width=3")


def test_saved_weights_load_into_pretrained_with_their_head_and_into_timm(tmp_path):
    model = pretrained("test_vit", weights="random", head="linear")
    model.head.activate([0, 1, 2])
    RunDirectory(tmp_path, load_config([])).write_weights(model, ["a", "b", "c"])
    again = pretrained("test_vit", weights=tmp_path / "weights.safetensors", head="saved")
    images = torch.rand(2, 3, 160, 160)
    torch.testing.assert_close(again.eval()(images), model.eval()(images))
    plain = timm.create_model("test_vit", num_classes=0, checkpoint_path=str(tmp_path / "backbone.safetensors")).eval()
    torch.testing.assert_close(plain(model.normalization(images)), model.features(images))
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "backbone.safetensors"))
    with pytest.raises(ValueError, match="holds no cosine or linear head"):
        pretrained("test_vit", weights=tmp_path / "backbone.safetensors", head="saved")
    (tmp_path / "weights.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"weights\.safetensors cannot be read"):
        load_weights(model, str(tmp_path), ["a"])


@pytest.mark.parametrize("kind", ["lora", "two"])
def test_what_a_run_trained_is_in_timms_names_with_adapters_and_beside_a_frozen_backbone(tmp_path, kind):
    torch.manual_seed(0)
    model = pretrained("test_vit", weights="random", lora={"rank": 2} if kind == "lora" else None).eval()
    for name, weight in model.backbone.named_parameters():
        torch.nn.init.normal_(weight, std=0.1) if "lora_B" in name else None
    images = torch.rand(2, 3, 160, 160)
    expected = model.features(images)
    if kind == "two":
        model.backbone = TwoBackbones(model.backbone, pretrained("test_vit", weights="random").backbone)
    RunDirectory(tmp_path, load_config([])).write_weights(model, ["a"])
    plain = timm.create_model("test_vit", num_classes=0, checkpoint_path=str(tmp_path / "backbone.safetensors")).eval()
    torch.testing.assert_close(plain(model.normalization(images)), expected)


def test_a_run_whose_head_was_read_from_a_file_can_be_started_from(tmp_path):
    for kind in ("cosine", "linear"):
        model = pretrained("test_vit", weights="random", head=kind)
        model.head.activate([0, 1])
        RunDirectory(tmp_path, load_config([])).write_weights(model, ["a", "b"])
        keys = plain(load_config(["model=timm", "model.architecture=test_vit", "model.head=saved"]).model)
        keys = {key: value for key, value in keys.items() if key not in MODEL_KEYS}
        started = started_model({**keys, "weights": "gone.safetensors", "start": str(tmp_path)}, ["a", "b"])
        assert type(started.head) is type(model.head)
        for name, value in model.head.state_dict().items():
            assert torch.equal(started.head.state_dict()[name], value), name
