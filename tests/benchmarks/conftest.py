"""Small datasets of coloured squares, and a strategy that evaluates."""

import gzip
import pickle

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from PIL import Image
from torch.utils.data import Dataset


class Squares(Dataset):
    """Noisy images whose colour says the class."""

    def __init__(self, classes, per_class=4, size=32, seed=0):
        generator = np.random.default_rng(seed)
        self.classes = list(classes)
        self.targets = [c for c in range(len(self.classes)) for _ in range(per_class)]
        self.images = generator.integers(0, 256, (len(self.targets), size, size, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.targets[index]


@pytest.fixture
def squares():
    return Squares


@pytest.fixture
def one_sentence():
    """Check that a call is refused in one sentence that has these parts."""

    def check(call, *parts):
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            call()
        message = str(raised.value)
        assert all(part in message for part in parts) and "\n" not in message, message

    return check


@pytest.fixture
def make_naive():
    """Naive that trains a model with SGD and measures the accuracy on a stream."""

    def make(model):
        return Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            evaluator=EvaluationPlugin(accuracy_metrics(stream=True)),
        )

    return make


@pytest.fixture
def sizes():
    """The number of items of each experience of each stream of a benchmark."""
    return lambda benchmark: benchmark.description["stream_sizes"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


# ---- small trees in the formats of the published data ----------------------------------------------------------------


def pixels(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def write_image(path, seed=0, size=(40, 36), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def image_writer():
    return write_image


@pytest.fixture
def cifar_tree(tmp_path):
    """Return a function that writes CIFAR-10 or CIFAR-100 and its corrupted twin; 2 test images per class."""

    def write(variant="cifar100", per_class=4):
        n_classes = 100 if variant == "cifar100" else 10
        folder = tmp_path / ("cifar-100-python" if variant == "cifar100" else "cifar-10-batches-py")
        folder.mkdir()
        key, names_key = ("fine_labels", "fine_label_names") if n_classes == 100 else ("labels", "label_names")
        files = {"train": ["train"], "test": ["test"], "meta": "meta"}
        if n_classes == 10:
            files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"], "meta": "batches.meta"}
        for part, count in (("train", per_class), ("test", 2)):
            for number, name in enumerate(files[part]):
                labels = [c for c in range(n_classes) for _ in range(count)]
                data = pixels(len(labels), 32, seed=10 * (part == "test") + number).transpose(0, 3, 1, 2)
                batch = {"data": data.reshape(len(labels), -1), key: labels, "batch_label": name}
                (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        names = {names_key: [f"class{c}" for c in range(n_classes)]}
        (folder / files["meta"]).write_bytes(pickle.dumps(names, protocol=2))

        corrupted = tmp_path / ("CIFAR-100-C" if variant == "cifar100" else "CIFAR-10-C")
        corrupted.mkdir()
        labels = np.array([c for c in range(n_classes) for _ in range(2)] * 5, dtype=np.uint8)
        np.save(corrupted / "labels.npy", labels)
        for number, name in enumerate(("fog", "snow")):
            np.save(corrupted / f"{name}.npy", pixels(len(labels), 32, seed=100 + number))
        return tmp_path

    return write


@pytest.fixture
def domainnet_tree(tmp_path):
    """DomainNet with four classes: 20 training and 3 test images of each in `real`, 2 and 2 in the other domains."""
    for domain in ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"):
        for part, count in (("train", 20 if domain == "real" else 2), ("test", 3 if domain == "real" else 2)):
            lines = []
            for target, name in enumerate(("aircraft_carrier", "airplane", "alarm_clock", "ambulance")):
                for number in range(count):
                    path = f"{domain}/{name}/{domain}_{target:03}_{number + 500 * (part == 'test'):06}.jpg"
                    write_image(tmp_path / path, seed=number)
                    lines.append(f"{path} {target}\n")
            (tmp_path / f"{domain}_{part}.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def imagenet_r_tree(tmp_path):
    """ImageNet-R with four classes of 10 images, and its README among the folders."""
    for number, wnid in enumerate(("n01443537", "n01484850", "n01494475", "n12267677")):
        for k in range(10):
            write_image(tmp_path / "imagenet-r" / wnid / f"art_{k}.jpg", seed=10 * number + k)
    (tmp_path / "imagenet-r" / "README.txt").write_text("ImageNet-R(endition)")
    return tmp_path


@pytest.fixture
def tiny_imagenet_tree(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    wnids = ["n02124075", "n04067472", "n01443537", "n03089624"]
    lines = []
    for number, wnid in enumerate(wnids):
        for k in range(5):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", seed=k, size=(64, 64))
        for k in range(2):
            name = f"val_{2 * k + number * 100}.JPEG"
            write_image(folder / "val" / "images" / name, seed=k, size=(64, 64))
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return tmp_path


@pytest.fixture
def core50_tree(tmp_path):
    for session in (1, 2, 3):
        for number in range(1, 51):
            for frame in range(5):
                path = f"s{session}/o{number}/C_{session:02}_{number:02}_{frame:03}.png"
                write_image(tmp_path / "core50_128x128" / path, seed=frame, size=(16, 16))
    return tmp_path


@pytest.fixture
def fashion_tree(tmp_path):
    """Fashion-MNIST: 4 training images per class as .gz, 2 test images per class extracted."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for prefix, count in (("train", 4), ("t10k", 2)):
        labels = np.arange(10, dtype=np.uint8).repeat(count)
        images = pixels(len(labels), 28)[..., 0]
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = np.array([0x0800 + array.ndim, *array.shape], ">i4").tobytes()
            content = header + array.tobytes()
            if prefix == "train":
                (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{prefix}-{name}-ubyte").write_bytes(content)
    return tmp_path


@pytest.fixture
def grocery_tree(tmp_path):
    """GroceryStoreDataset with four classes, of depths as published: 3 training and 2 test photographs of each.

    As in the published lists, the validation list lacks a class.
    """
    folder = tmp_path / "dataset"
    places = ["Fruit/Apple/Pink-Lady", "Fruit/Kiwi", "Packages/Milk/Arla-Milk", "Vegetables/Leek"]
    columns = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)"
    table = [f"{columns},Product Description Path (str)"]
    for target, place in enumerate(places):
        name, coarse = place.split("/")[-1], place.split("/")[1]
        picture = f"/iconic-images-and-descriptions/{place}/{name}_Iconic.jpg"
        table.append(f"{name},{target},{coarse},{target},{picture},{picture[:-10]}Description.txt")
        write_image(folder / picture[1:], seed=target)
    (folder / "classes.csv").write_text("\n".join(table) + "\n")
    for seed, (part, count) in enumerate((("train", 3), ("val", 1), ("test", 2))):
        lines = []
        for target, place in enumerate(places[: 3 if part == "val" else 4]):
            for number in range(1, count + 1):
                path = f"{part}/{place}/{place.split('/')[-1]}_{number:03}.jpg"
                write_image(folder / path, seed=100 * seed + 10 * target + number)
                lines.append(f"{path}, {target}, {target}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def domains_tree(tmp_path):
    """Three domains of three classes with 5 to 7 images, as PACS has them; `sketch` lacks a class and has another."""
    for seed, domain in enumerate(("art", "photo", "sketch")):
        for c, name in enumerate(("dog", "elephant", "horse") if domain != "sketch" else ("dog", "horse", "zebra")):
            for number in range(5 + c):
                write_image(tmp_path / domain / name / f"pic_{number}.jpg", seed=100 * seed + 10 * c + number)
    return tmp_path
