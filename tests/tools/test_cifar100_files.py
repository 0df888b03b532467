"""The script that writes CIFAR-100's files from a folder of images, read by the benchmark."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftp_cl.benchmarks.cifar import Cifar

SCRIPT = Path(__file__).parents[2] / "tools" / "cifar100_files.py"


def run(monkeypatch, *arguments):
    """With two training images and a test image of each class; CIFAR-100 has 500 and 100."""
    spec = importlib.util.spec_from_file_location("cifar100_files", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.COUNTS == {"train": 500, "test": 100}
    monkeypatch.setattr(script, "COUNTS", {"train": 2, "test": 1})
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    script.main()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two training images and a test image of each of a hundred classes; their first pixels tell which."""
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 2), ("test", 1)):
        for label in range(100):
            place = folder / split / f"class_{label:02}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((32, 32, 3), np.uint8)
                pixels[0, 0] = label, number, 200 + (split == "test")
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def test_the_files_have_every_image_class_by_class(images, tmp_path, monkeypatch):
    run(monkeypatch, images, tmp_path)
    for split, count, blue in (("train", 2, 200), ("test", 1, 201)):
        dataset = Cifar(tmp_path, "cifar100", split)
        assert dataset.classes == [f"class_{label:02}" for label in range(100)]
        expected = [[label, number, blue] for label in range(100) for number in range(count)]
        assert dataset.data[:, 0, 0].tolist() == expected and not dataset.data[:, 1:].any()
        assert list(dataset.targets) == [label for label, _, _ in expected]


def test_training_images_are_mixed_by_a_seed(images, tmp_path, monkeypatch):
    run(monkeypatch, images, tmp_path, "--permute", 3)
    train, test = (Cifar(tmp_path, "cifar100", split) for split in ("train", "test"))
    assert list(train.targets) == [place // 2 for place in np.random.default_rng(3).permutation(200)]
    assert train.data[:, 0, 0, 0].tolist() == list(train.targets)
    assert list(test.targets) == list(range(100))


def test_what_is_not_cifar100_is_refused_and_nothing_is_written(images, tmp_path, monkeypatch, capsys):
    (tmp_path / "few" / "train" / "apple").mkdir(parents=True)
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "few", tmp_path / "out")
    assert "has 1 folders, where CIFAR-100 has 100" in capsys.readouterr().err
    place = images / "train" / "class_07" / "0.png"
    whole = place.read_bytes()
    Image.new("RGB", (33, 32)).save(place)
    try:
        with pytest.raises(SystemExit):
            run(monkeypatch, images, tmp_path / "out")
        assert "0.png has 33 x 32 pixels" in capsys.readouterr().err
        place.unlink()
        with pytest.raises(SystemExit):
            run(monkeypatch, images, tmp_path / "out")
        assert "class_07 has 1 files, where CIFAR-100 has 2" in capsys.readouterr().err
    finally:
        place.write_bytes(whole)
    assert not any((tmp_path / "out").iterdir())
    run(monkeypatch, images, tmp_path / "out")
    with pytest.raises(SystemExit):
        run(monkeypatch, images, tmp_path / "out")
    assert "exists: remove it first" in capsys.readouterr().err
