"""split_cifar10 and split_cifar100 on small files in the published formats."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ftp_cl.benchmarks import Cifar, CorruptedCifar, split_cifar10, split_cifar100, split_fashion_mnist


def build(root, function=split_cifar100, **options):
    return function(dataset_root=root, download=False, **options)


@pytest.mark.parametrize("n_experiences", [5, 10, 20])
def test_cifar100_is_cut_into_equal_experiences_of_all_classes(cifar_tree, n_experiences):
    benchmark = build(cifar_tree(), n_experiences=n_experiences)
    assert list(benchmark.streams) == ["train", "test"]
    for name, per_class in (("train", 4), ("test", 2)):
        stream = benchmark.streams[name]
        assert [len(e.dataset) for e in stream] == [100 // n_experiences * per_class] * n_experiences
        assert sorted(c for e in stream for c in e.classes_in_this_experience) == list(range(100))
    image, target, task = benchmark.train_stream[1].dataset[0]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
    assert target in benchmark.train_stream[1].classes_in_this_experience and task == 0
    assert benchmark.description["experiences"][0]["names"][0].startswith("class")


def test_cifar10_reads_five_batches(cifar_tree):
    root = cifar_tree("cifar10")
    assert len(Cifar(root, "cifar10", "train")) == 200 and len(Cifar(root, "cifar10", "test")) == 20
    benchmark = build(root, split_cifar10, corruptions="fog", severities=2)
    assert list(benchmark.streams) == ["train", "test", "ood_fog_2"]


def test_pixels_are_those_of_the_file(cifar_tree):
    root = cifar_tree()
    with (root / "cifar-100-python" / "test").open("rb") as file:
        raw = pickle.load(file)
    image, target = Cifar(root, "cifar100", "test")[7]
    assert np.array_equal(np.asarray(image).transpose(2, 0, 1).ravel(), raw["data"][7])
    assert target == raw["fine_labels"][7]


def test_half_of_the_classes_may_arrive_first(cifar_tree):
    benchmark = build(cifar_tree(), n_experiences=6, first_exp_with_half_classes=True)
    assert [len(e.classes_in_this_experience) for e in benchmark.test_stream] == [50, 10, 10, 10, 10, 10]


def test_published_corruptions_are_the_rows_of_their_severity(cifar_tree):
    root = cifar_tree()
    published = np.load(root / "CIFAR-100-C" / "snow.npy")
    benchmark = build(root, corruptions=["snow", "fog"], severities=(1, 4))
    assert list(benchmark.streams)[2:] == ["ood_snow_1", "ood_snow_4", "ood_fog_1", "ood_fog_4"]
    dataset = CorruptedCifar(root, "cifar100", "snow", 4, [f"class{c}" for c in range(100)])
    assert np.array_equal(dataset.data, published[600:800])
    assert np.array_equal(np.asarray(dataset[3][0]), published[603]) and dataset[3][1] == 1
    for mine, clean in zip(benchmark.streams["ood_snow_4"], benchmark.test_stream, strict=True):
        assert sorted(mine.dataset.targets) == sorted(clean.dataset.targets)


def test_corruptions_can_be_made_before_images_are_resized(cifar_tree):
    root = cifar_tree()
    small = build(root, corruptions="contrast", severities=5, corruption_source="made")
    large = build(root, corruptions="contrast", severities=5, corruption_source="made", size=64)
    image = large.streams["ood_contrast_5"][0].dataset[0][0]
    assert image.shape == (3, 64, 64) and large.train_stream[0].dataset[0][0].shape == (3, 64, 64)
    assert torch.isclose(image.mean(), small.streams["ood_contrast_5"][0].dataset[0][0].mean(), atol=0.01)


def test_validation_and_shots_are_drawn_per_class(cifar_tree):
    benchmark = build(cifar_tree(), validation_fraction=0.25, shots=2)
    sizes = benchmark.description["stream_sizes"]
    assert (sum(sizes["train"]), sum(sizes["validation"]), sum(sizes["test"])) == (200, 100, 200)


def test_pickled_dataset_is_small_and_equal(cifar_tree):
    dataset = Cifar(cifar_tree(), "cifar100", "train")
    stored = pickle.dumps(dataset)
    assert len(stored) < 1000 and np.array_equal(pickle.loads(stored).data, dataset.data)


def test_missing_data_says_what_where_and_whence(tmp_path, one_sentence):
    what = "cifar-100-python is missing: get cifar-100-python.tar.gz from https://www.cs.toronto.edu"
    one_sentence(lambda: build(tmp_path), what, f"extract it in {tmp_path}.")


def test_failed_download_is_one_sentence(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("no network")

    monkeypatch.setattr("ftp_cl.benchmarks.download.download_url", fail)
    with pytest.raises(FileNotFoundError, match=r"downloading it failed: no network.*get cifar-100-python\.tar\.gz"):
        split_cifar100(dataset_root=tmp_path)


def test_download_is_extracted_whole(tmp_path, cifar_tree, monkeypatch):
    import tarfile

    root = cifar_tree()
    archive = tmp_path / "elsewhere.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(root / "cifar-100-python", "cifar-100-python")

    def fetch(url, folder, name, md5):
        assert url.endswith(name) and md5 == "eb9058c3a382ffc7106e4002c42a8d85"
        (Path(folder) / name).write_bytes(archive.read_bytes())

    monkeypatch.setattr("ftp_cl.benchmarks.download.download_url", fetch)
    assert len(Cifar(tmp_path / "new", "cifar100", "train", download=True)) == 400
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["cifar-100-python", "cifar-100-python.tar.gz"]


def test_a_download_that_broke_off_leaves_nothing_behind(tmp_path, monkeypatch):
    def fetch(url, folder, name, md5):
        (Path(folder) / name).write_bytes(b"half of it")
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("ftp_cl.benchmarks.download.download_url", fetch)
    for build in (split_cifar100, split_fashion_mnist):
        with pytest.raises(FileNotFoundError, match="downloading it failed: File not found"):
            build(dataset_root=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def mislabel(root):
    path = root / "cifar-100-python" / "test"
    batch = pickle.loads(path.read_bytes())
    batch["fine_labels"][8] = 100
    path.write_bytes(pickle.dumps(batch))


def damage(root, name):
    path = root / name
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda root: damage(root, "cifar-100-python/test"), {}, "cifar-100-python/test cannot be read"),
        (lambda root: (root / "cifar-100-python/meta").unlink(), {}, "meta is missing"),
        (lambda root: damage(root, "CIFAR-100-C/fog.npy"), {"corruptions": "fog"}, "fog.npy cannot be read"),
        (lambda root: None, {"corruptions": "frost"}, "frost.npy is missing"),
        (
            lambda root: np.save(root / "CIFAR-100-C" / "fog.npy", np.zeros((10, 32, 32, 3), np.uint8)),
            {"corruptions": "fog"},
            "fog.npy has shape (10, 32, 32, 3)",
        ),
        (
            lambda root: np.save(root / "CIFAR-100-C" / "labels.npy", np.zeros((1000, 1), np.uint8)),
            {"corruptions": "fog"},
            "labels.npy has shape (1000, 1)",
        ),
        (
            lambda root: (root / "CIFAR-100-C" / "labels.npy").write_bytes(b""),
            {"corruptions": "fog"},
            "labels.npy cannot be read",
        ),
        (mislabel, {}, "test files: item 8 has the class 100, but classes are 0 to 99"),
        (lambda root: None, {"n_experiences": 7}, "n_experiences=7 does not divide the 100 classes"),
        (lambda root: None, {"size": 16}, "the nearest is 32"),
        (lambda root: None, {"corruptions": "fogg"}, "did you mean 'fog'"),
        (lambda root: None, {"corruption_source": "mad"}, "did you mean 'made'"),
        (lambda root: None, {"corruptions": "fog", "corrupted": "validation"}, "take corruption_source='made'"),
    ],
)
def test_damaged_files_and_wrong_arguments_raise_one_clear_sentence(cifar_tree, change, options, message, one_sentence):
    root = cifar_tree()
    change(root)
    one_sentence(lambda: build(root, **options), message)


@pytest.mark.parametrize("severity", [-1, 0, 6])
def test_a_severity_that_does_not_exist_is_refused(cifar_tree, severity):
    with pytest.raises(ValueError, match=f"severity={severity} must be 1"):
        CorruptedCifar(cifar_tree(), "cifar100", "fog", severity, [f"class{c}" for c in range(100)])


class Runs:
    """A pickle of it runs a command where it is read without care."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_files_of_cifar_run_no_code_and_are_read_in_every_old_protocol(cifar_tree, tmp_path):
    root = cifar_tree("cifar10")
    path = root / "cifar-10-batches-py" / "test_batch"
    batch = pickle.loads(path.read_bytes())
    expected = Cifar(root, "cifar10", "test")
    for protocol in (0, 2, 4):
        path.write_bytes(pickle.dumps({**batch, "labels": [np.int64(c) for c in batch["labels"]]}, protocol=protocol))
        found = Cifar(root, "cifar10", "test")
        assert np.array_equal(found.data, expected.data) and found.targets == expected.targets
    path.write_bytes(pickle.dumps({**batch, "extra": Runs(f"touch {tmp_path}/ran")}))
    with pytest.raises(ValueError, match=r"test_batch cannot be read .*it asks for posix\.system"):
        Cifar(root, "cifar10", "test")
    assert not (tmp_path / "ran").exists()


def test_class_indices_are_never_rounded(cifar_tree):
    root = cifar_tree("cifar10")
    path = root / "cifar-10-batches-py" / "test_batch"
    batch = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({**batch, "labels": [c + 0.5 for c in batch["labels"]]}, protocol=2))
    with pytest.raises(ValueError, match=r"item 0 has the class 0\.5, which is no whole number"):
        Cifar(root, "cifar10", "test")
    labels = root / "CIFAR-10-C" / "labels.npy"
    np.save(labels, np.load(labels) + 0.25)
    with pytest.raises(ValueError, match=r"labels\.npy: item 0 has the class 0\.25"):
        CorruptedCifar(root, "cifar10", "fog", 1, [str(c) for c in range(10)])
    with labels.open("wb") as file:
        np.savez(file, labels=np.arange(5))
    with pytest.raises(ValueError, match=r"labels\.npy cannot be read \(it holds several arrays\)"):
        CorruptedCifar(root, "cifar10", "fog", 1, [str(c) for c in range(10)])
