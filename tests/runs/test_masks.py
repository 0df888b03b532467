"""Runs on masks, from keys to the report: numbers, pictures, resuming, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ftp_cl.cli import main
from ftp_cl.models.dense import MaskHead, segmenter
from ftp_cl.runs.config import ConfigError, load_config
from ftp_cl.runs.directory import CLASSES, WEIGHTS_FILE
from ftp_cl.runs.start import load_weights
from ftp_cl.study.write import write_report

TINY = [
    "benchmark=emoji_scenes", "benchmark.size=32", "benchmark.train_scenes=24", "benchmark.test_scenes=4",
    "benchmark.validation_scenes=2", "benchmark.ood_domains=[line_art]", "train.epochs=1", "train.batch_size=8",
]  # fmt: skip


@pytest.mark.slow
def test_a_run_measures_mean_iou_and_shows_predictions(tmp_path):
    assert main(["run", *TINY, "train.augmentation=weak", f"out={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metric"] == "mean_iou" and result["model"] == "segmenter"
    test = result["pixels"]["test"]
    assert (
        result["average_accuracy"]
        == pytest.approx(test["mean_iou"])
        == pytest.approx(np.mean(list(test["iou"].values())))
    )
    assert result["ood"] == {"ood_line_art": pytest.approx(result["pixels"]["ood_line_art"]["mean_iou"], abs=1e-5)}
    assert result["projection"] and not any("decoder" in name or "head" in name for name in result["projection"])
    with Image.open(tmp_path / "run" / result["examples"]["test"]["file"]) as picture:
        assert picture.size == (3 * 32, 2 * 32)
    page = write_report([tmp_path / "run"], tmp_path / "report").html.read_text()
    assert page.count("data:image/png;base64,") == 2 and "Mean IoU (%) on each test experience" in page


@pytest.mark.slow
@pytest.mark.parametrize("method", ["naive", "mib"])
def test_a_class_incremental_run_goes_on_from_where_it_was_killed(resumed, method):
    small = ["model.encoder=test_resnet", "model.weights=random"]
    result = resumed(*TINY, *small, "benchmark.n_experiences=2", f"method={method}", at=(1, 1), every=1)
    matrix = np.array(result["accuracy_matrix"])
    assert matrix.shape == (2, 2) and matrix[0, 1] == 0, "nothing is seen of the second task after the first"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["method=ncm"], "method=ncm is for a class of each image, and benchmark=emoji_scenes has one of each pixel"),
     (["method=ftp_replay"], "method=ftp_replay is for a class of each image"),
     (["model=small_cnn"], "use segmenter")],
)  # fmt: skip
def test_what_needs_one_class_per_image_is_refused(words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(["benchmark=emoji_scenes", *words])


def test_a_model_for_masks_is_refused_where_images_have_a_class():
    with pytest.raises(ConfigError, match="use efficientnet_lite0"):
        load_config(["model=segmenter"])


def test_the_classes_of_a_model_are_found_by_name_where_they_have_other_numbers(tmp_path):
    model, other = (segmenter(weights="random").eval() for _ in range(2))
    next(module for module in model.modules() if isinstance(module, MaskHead)).activate([0, 1, 2])
    save_file(model.state_dict(), tmp_path / WEIGHTS_FILE, {CLASSES: json.dumps(["background", "cell", "wall"])})
    load_weights(other, str(tmp_path), ["background", "wall", "cell"])
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(other(image)[:, [0, 2, 1]], model(image))


def test_what_runs_on_masks_have_unless_they_say_otherwise():
    config = load_config(["benchmark=emoji_scenes"])
    assert (config.model.name, config.train.epochs) == ("segmenter", 4)
    assert load_config(["benchmark=emoji_scenes", "train.epochs=7"]).train.epochs == 7
    assert load_config([]).train.epochs == 10
