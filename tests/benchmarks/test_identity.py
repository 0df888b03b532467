"""data_identity: equal data give equal values wherever they lie, and any change of them another."""

import json
import shutil

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, nc_benchmark
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks import few_labels, image_folder, split_cifar10, split_digits, with_corruptions
from ftp_cl.benchmarks._sources import sources
from ftp_cl.benchmarks.identity import data_identity


def numbered(start, count=6):
    dataset = TensorDataset(torch.arange(start, start + count).float()[:, None], torch.arange(count) % 2)
    dataset.targets = dataset.tensors[1].tolist()
    return dataset


@pytest.fixture
def folders(tmp_path, image_writer):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for k in range(3):
                image_writer(tmp_path / "a" / part / name / f"{k}.png", seed=k)
    return tmp_path / "a"


def test_sources_are_those_of_each_item_in_its_place():
    parts = [as_classification_dataset(numbered(start)) for start in (0, 100, 200)]
    tree = parts[0].subset([5, 1, 3]).concat(parts[1]).concat(parts[2].subset([2, 2, 0]))
    groups = TransformGroups({"train": torch.neg, "eval": None})
    tree = type(tree)([tree], transform_groups=groups).subset([11, 0, 7, 2, 3])
    found = [float(source.raw[index][0]) for source in sources(tree) for index in source.indices]
    assert found == [-float(item[0]) for item in tree]
    assert found == [200, 5, 104, 3, 100]


def test_files_count_by_name_and_size_and_not_by_where_they_lie(folders, image_writer):
    first = data_identity(image_folder(folders, 2, size=16))
    assert json.loads(json.dumps(first)) == first
    assert first["train"]["items"] == [3, 3] and first["train"]["covers"] == ["class indices", "file names and sizes"]
    moved = folders.parent / "elsewhere"
    shutil.copytree(folders, moved)
    assert data_identity(image_folder(moved, 2, size=32)) == first

    def changes(action, back):
        action()
        found = data_identity(image_folder(moved, 2, size=16))
        back()
        assert found["test"] == first["test"] and found["train"]["digest"] != first["train"]["digest"]
        assert data_identity(image_folder(moved, 2, size=16)) == first

    path, other = (moved / "train" / "cat" / name for name in ("1.png", "11.png"))
    content = path.read_bytes()
    changes(lambda: path.rename(other), lambda: other.rename(path))
    changes(lambda: path.write_bytes(content + b"x"), lambda: path.write_bytes(content))
    changes(path.unlink, lambda: path.write_bytes(content))
    changes(lambda: image_writer(other), other.unlink)


def test_torchvisions_folders_count_the_same_way(folders):
    def build(root):
        return nc_benchmark(TorchvisionFolder(root / "train"), TorchvisionFolder(root / "test"), 1, False, seed=0)

    first = data_identity(build(folders))
    assert first["train"]["covers"] == ["class indices", "file names and sizes"]
    moved = folders.parent / "elsewhere"
    shutil.copytree(folders, moved)
    assert data_identity(build(moved)) == first
    (moved / "test" / "dog" / "0.png").write_bytes(b"x")
    assert data_identity(build(moved))["test"] != first["test"]


def test_values_in_memory_count():
    def build(change=None):
        data = numbered(0)
        if change is not None:
            data.tensors[0][change] += 1
        return benchmark_from_datasets(train=[as_classification_dataset(data)], test=[as_classification_dataset(data)])

    first = data_identity(build())
    assert first["train"]["covers"] == ["class indices", "values"] and data_identity(build()) == first
    assert all(data_identity(build(k))["train"] != first["train"] for k in range(6))
    subset = Subset(numbered(0), [1, 3])
    subset.targets = [1, 1]
    parts = as_classification_dataset(subset), as_classification_dataset(numbered(0)).subset([1, 3])
    identities = [data_identity(benchmark_from_datasets(train=[part])) for part in parts]
    assert [i["train"]["items"] for i in identities] == [[2], [2]]


def test_seed_labels_and_corruptions_count():
    first = data_identity(split_digits(2, size=32))
    assert data_identity(split_digits(2, size=32)) == first
    assert data_identity(split_digits(2, size=32, seed=1))["train"] != first["train"]
    few = [data_identity(few_labels(split_digits(2, size=32), per_class=n)) for n in (2, 2, 3)]
    assert few[0] == few[1] and few[0]["unlabelled"] != few[2]["unlabelled"]
    assert few[0]["unlabelled"]["covers"] == ["class indices", "values"] and few[0]["test"] == first["test"]
    corrupted = data_identity(with_corruptions(split_digits(2, size=32), ["fog"], [1, 2]))
    assert corrupted["test"] == first["test"]
    assert len({corrupted[name]["digest"] for name in ("test", "ood_fog_1", "ood_fog_2")}) == 3


def test_published_corruptions_are_not_read(cifar_tree):
    root = cifar_tree("cifar10")
    benchmark = split_cifar10(dataset_root=root, download=False, corruptions=["fog"], severities=[1])
    found = data_identity(benchmark)
    assert found["train"]["covers"] == ["class indices", "values"]
    assert found["ood_fog_1"]["covers"] == ["class indices", "file names and sizes"]


class Unknown(Dataset):
    """Images that nothing tells of without reading them."""

    targets = (0, 1, 1)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise AssertionError("it was read")


def test_of_other_datasets_class_indices_alone_count_and_that_is_said():
    unknown = Unknown()
    found = data_identity(nc_benchmark(unknown, unknown, 1, False, train_transform=to_tensor))
    assert found["train"]["covers"] == ["class indices"] and found["train"]["items"] == [3]
    assert np.unique([len(s["digest"]) for s in found.values()]).tolist() == [32]
