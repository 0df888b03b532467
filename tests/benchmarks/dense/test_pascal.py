"""PASCAL-Context's multi-task release: a tree of that layout is written here, .mat files included."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ftp_cl.benchmarks.dense.pascal import PascalContext, pascal_context
from ftp_cl.cli import main
from ftp_cl.optim import FTP

H, W = 12, 16
WALL, SKY = 440, 360  # labels of PASCAL-Context: NYU has walls and no sky


def unit_normals(seed):
    found = np.random.default_rng(seed).normal(size=(H, W, 3))
    return found / np.linalg.norm(found, axis=2, keepdims=True)


def person(parts, class_ind=15):
    fields = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
    records = np.zeros((1, len(parts)), [("part_name", object), ("mask", object)])
    for i, (name, mask) in enumerate(parts):
        records[0, i] = (name, mask.astype(np.uint8))
    found = np.zeros(1, fields)
    found[0] = ("person", class_ind, np.ones((H, W), np.uint8), records if parts else np.zeros((0, 0)))
    return found[0]


def write_parts(path, objects):
    array = np.zeros((1, len(objects)), objects[0].dtype)
    for i, one in enumerate(objects):
        array[0, i] = one
    savemat(path, {"anno": {"imname": path.stem, "objects": array}})


@pytest.fixture
def root(tmp_path):
    folders = ("JPEGImages", "ImageSets/Context", "semseg/VOC12", "semseg/pascal-context", "human_parts",
               "normals_distill", "pascal-context/trainval")  # fmt: skip
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    head, arm = np.zeros((2, H, W), bool)
    head[:3], arm[2:5, 4:8] = True, True
    for number, name in enumerate(("a", "b", "c")):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8)).save(
            tmp_path / "JPEGImages" / f"{name}.jpg"
        )
        mask = np.random.default_rng(number).choice([0, 3, 20, 255], (H, W)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / f"semseg/{'VOC12' if number else 'pascal-context'}/{name}.png")
        people = [person([("head", head), ("luarm", arm)]), person([])] if number else [person([], class_ind=8)]
        write_parts(tmp_path / "human_parts" / f"{name}.mat", people)
        normals = np.round((unit_normals(number) + 1) * 255 / 2).astype(np.uint8)
        Image.fromarray(normals).save(tmp_path / "normals_distill" / f"{name}.png")
        labels = np.full((H, W), WALL, np.uint16)
        labels[:, 8:] = SKY
        savemat(tmp_path / "pascal-context/trainval" / f"{name}.mat", {"LabelMap": labels})
    (tmp_path / "ImageSets/Context/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Context/val.txt").write_text("c\n")
    return tmp_path


def test_masks_are_of_either_folder(root):
    dataset = PascalContext(root, "train", "segmentation", (H, W))
    for number in range(2):
        expected = np.random.default_rng(number).choice([0, 3, 20, 255], (H, W))
        np.testing.assert_array_equal(dataset[number][1], expected)


def test_parts_are_those_of_people_and_images_without_any_are_left_out(root):
    dataset = PascalContext(root, "train", "human_parts", (H, W))
    assert len(dataset) == 1
    expected = np.zeros((H, W), int)
    expected[:3] = 1
    expected[2:5, 4:8] = 3
    np.testing.assert_array_equal(dataset[0][1], expected)


def test_people_without_annotated_parts_are_ignored_and_those_without_a_pixel_are_none(root):
    write_parts(root / "human_parts/c.mat", [person([])])
    assert (PascalContext(root, "val", "human_parts", (H, W))[0][1] == 255).all()
    unseen = person([])
    unseen["mask"] = np.zeros((H, W), np.uint8)
    write_parts(root / "human_parts/c.mat", [unseen])
    with pytest.raises(ValueError, match="lists no image with people"):
        PascalContext(root, "val", "human_parts", (H, W))


def test_normals_are_those_of_the_file_where_the_label_is_one_of_nyu(root):
    _, found = PascalContext(root, "val", "normals", (H, W))[0]
    assert (found[:, :, 8:] == 0).all()
    np.testing.assert_allclose(found[:, :, :8], np.moveaxis(unit_normals(2), 2, 0)[:, :, :8], atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(found[:, :, :8], axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("target", "shape"), [("segmentation", (6, 8)), ("human_parts", (6, 8)), ("normals", (3, 6, 8))]
)
def test_each_target_is_a_benchmark(root, target, shape):
    benchmark = pascal_context(root, target, resize=(6, 8))
    image, found, _ = benchmark.test_stream[0].dataset[0]
    assert image.shape == (3, 6, 8) and found.shape == shape
    assert benchmark.description["target"] == ("normals" if target == "normals" else "masks")


@pytest.mark.parametrize(
    ("target", "file"),
    [
        *(("segmentation", file) for file in ("JPEGImages/c.jpg", "semseg/VOC12/c.png")),
        *(("normals", file) for file in ("normals_distill/c.png", "pascal-context/trainval/c.mat")),
        ("human_parts", "human_parts/c.mat"),
    ],
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_damaged_files_are_named(root, target, file, share):
    content = (root / file).read_bytes()
    (root / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"{file} cannot be read \(.*: get it again, or remove it"):
        PascalContext(root, "val", target, (H, W))[0]


def test_wrong_targets_are_told_in_a_sentence(root):
    Image.fromarray(np.full((H, W, 3), 255, np.uint8)).save(root / "normals_distill/c.png")
    with pytest.raises(ValueError, match=r"96 normals in .*c\.png have a length outside"):
        PascalContext(root, "val", "normals", (H, W))[0]
    Image.fromarray(np.full((H, W), 77, np.uint8)).save(root / "semseg/VOC12/c.png")
    with pytest.raises(ValueError, match="192 pixels of no class"):
        PascalContext(root, "val", "segmentation", (H, W))[0]
    Image.fromarray(np.zeros((H, W + 1), np.uint8)).save(root / "semseg/VOC12/c.png")
    with pytest.raises(ValueError, match="17 x 12 pixels, and its image 16 x 12"):
        PascalContext(root, "val", "segmentation", (H, W))[0]
    write_parts(root / "human_parts/c.mat", [person([("tail", np.ones((H, W)))])])
    with pytest.raises(ValueError, match="part of a person called 'tail'"):
        PascalContext(root, "val", "human_parts", (H, W))[0]
    savemat(root / "pascal-context/trainval/c.mat", {"Labels": np.zeros((H, W))})
    with pytest.raises(ValueError, match=r"c\.mat cannot be read \(it has no LabelMap\)"):
        PascalContext(root, "val", "normals", (H, W))[0]
    (root / "normals_distill/a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"normals_distill/a\.png"):
        pascal_context(root, "normals")


@pytest.mark.slow
def test_a_run_learns_normals_and_counts_angles(root, tmp_path):
    words = ["run", "benchmark=pascal_context", f"benchmark.dataset_root={root}", "benchmark.target=normals",
             "benchmark.resize=[32,32]", "train.epochs=1", "train.augmentation=weak"]  # fmt: skip
    assert main([*words, f"out={tmp_path / 'refused'}"]) == 2
    assert main([*words, "model.outputs=normals", f"out={tmp_path / 'run'}"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metric"] == "within_11.25"
    found = result["pixels"]["test"]
    assert result["average_accuracy"] == pytest.approx(found["within_11.25"], abs=1e-5)
    assert 0 < found["mean_angle"] < 180 and found["within_11.25"] <= found["within_30"]


@pytest.mark.slow
def test_the_recipe_learns_all_targets_from_one_projected_encoder(root, monkeypatch, capsys, caplog):
    made = []

    class Watched(FTP):
        def attach(self, optimizer):
            made.append(self)
            return super().attach(optimizer)

    monkeypatch.setattr("ftp_cl.optim.FTP", Watched)
    script = Path(__file__).parents[3] / "strategies" / "multitask_ftp.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--root", str(root), "--epochs", "2"])
    runpy.run_path(str(script), run_name="__main__")
    printed = re.findall(r"(\w+): mean (?:IoU|angle) ([\d.]+) (%|degrees)", capsys.readouterr().out)
    assert [(name, unit) for name, _, unit in printed] == [
        ("segmentation", "%"), ("human_parts", "%"), ("normals", "degrees"),
    ]  # fmt: skip
    assert 0 < float(printed[2][1]) < 180 and not caplog.records
    (ftp,) = made
    summary = ftp.summary()
    assert len(summary) > 100 and not any("decoder" in name or "head" in name for name in summary)
    assert all(row["mean_distance"] <= row["radius"] * 1.001 + 1e-4 for row in summary.values())
