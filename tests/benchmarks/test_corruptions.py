"""with_corruptions: deterministic per image, applied to the raw image, and cached whole or not at all."""

import pickle
import sys
import zlib

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks import CORRUPTIONS, CorruptedDataset, corrupt, split_digits, split_emoji, with_corruptions
from ftp_cl.benchmarks import corruptions as module


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 32, 3), dtype=np.uint8))


def by_target(stream):
    """Items of a stream, whatever their order and experience."""
    return sorted((target, image.numpy().tobytes()) for e in stream for image, target, _ in e.dataset)


SLOW = {"glass_blur": pytest.mark.slow}  # it compiles for seconds


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in CORRUPTIONS])
def test_same_image_severity_and_seed_give_the_same_pixels_and_leave_numpys_generator_alone(image, name):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = corrupt(image, name, 3, seed=7, constants="imagenet")
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    assert np.array_equal(first, corrupt(image, name, 3, seed=7, constants="imagenet"))
    assert first.size == image.size and first.mode == "RGB"
    assert not np.array_equal(first, image)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_constants_of_cifar_are_gentler_deterministic_and_take_any_shape(image, name):
    image = image.resize((16, 20)).resize((130, 63))
    gentle, again = (np.asarray(corrupt(image, name, 3, constants="cifar"), float) for _ in range(2))
    assert gentle.shape == (63, 130, 3) and np.array_equal(gentle, again)
    assert np.array_equal(gentle, corrupt(image, name, 3))  # below 64 pixels
    if name not in ("elastic_transform", "glass_blur", "frost"):  # whose draws differ more than their constants
        strong = np.asarray(corrupt(image, name, 3, constants="imagenet"), float)
        assert 0 < np.abs(gentle - image).mean() < np.abs(strong - image).mean()


def test_constants_of_cifar_have_the_published_effect():
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    for severity, deviation in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1):
        noisy = np.asarray(corrupt(grey, "gaussian_noise", severity, constants="cifar"), float) / 255
        assert noisy.std() == pytest.approx(deviation, rel=0.05)
    share = np.mean(np.asarray(corrupt(grey, "impulse_noise", 5, constants="cifar")) != 128)
    assert share == pytest.approx(0.07, abs=0.01)
    halves = np.full((32, 32, 3), 55, np.uint8)
    halves[:16] = 155
    faint = np.asarray(corrupt(Image.fromarray(halves), "contrast", 4), float)
    assert faint[0, 0, 0] - faint[-1, 0, 0] == pytest.approx(0.3 * 100, abs=1)
    bright = np.asarray(corrupt(grey, "brightness", 5, constants="cifar"), float)
    assert bright.mean() == pytest.approx(128 + 0.3 * 255, abs=1)


def test_seed_and_severity_change_the_noise(image):
    pixels = {np.asarray(corrupt(image, "gaussian_noise", s, seed=k)).tobytes() for s in (1, 5) for k in (0, 1)}
    assert len(pixels) == 4


def test_higher_severity_changes_the_image_more(image):
    for name in ("gaussian_noise", "contrast", "brightness"):
        error = [np.abs(np.asarray(corrupt(image, name, s), float) - np.asarray(image)).mean() for s in (1, 3, 5)]
        assert error == sorted(error)


def test_streams_are_the_test_stream_corrupted_before_the_transforms():
    seen = []
    benchmark = split_emoji(
        5, size=32, ood_domains=(), eval_transform=lambda image: seen.append(image) or to_tensor(image)
    )
    shifted = with_corruptions(benchmark, ["fog", "pixelate"], (1, 5))
    assert list(shifted.streams)[3:] == ["ood_fog_1", "ood_fog_5", "ood_pixelate_1", "ood_pixelate_5"]
    for clean, foggy in zip(benchmark.test_stream, shifted.streams["ood_fog_5"], strict=True):
        assert list(clean.dataset.targets) == list(foggy.dataset.targets)
        assert foggy.classes_seen_so_far == clean.classes_seen_so_far
        assert foggy.current_experience == clean.current_experience
        assert foggy.origin_stream.name == "ood_fog_5"
    benchmark.test_stream[2].dataset[3]
    raw = seen.pop()
    item = shifted.streams["ood_fog_5"][2].dataset[3]
    assert np.array_equal(seen.pop(), corrupt(raw, "fog", 5))
    assert torch.equal(item[0], to_tensor(corrupt(raw, "fog", 5)))
    assert shifted.description["ood"]["ood_fog_5"]["corrupted"] == "test"


def test_corruption_depends_on_neither_class_order_nor_number_of_experiences():
    streams = [
        with_corruptions(split_emoji(n, size=32, ood_domains=(), seed=s), "shot_noise", 3).streams["ood_shot_noise_3"]
        for n, s in ((5, 0), (2, 1))
    ]
    assert by_target(streams[0]) == by_target(streams[1])


def test_workers_give_the_same_images():
    benchmark = with_corruptions(split_emoji(5, size=32, ood_domains=()), "snow", 2)
    dataset = benchmark.streams["ood_snow_2"][0].dataset
    loaded = torch.cat([x for x, *_ in DataLoader(dataset, 16, num_workers=2, collate_fn=dataset.collate_fn)])
    assert torch.equal(loaded, torch.stack([dataset[i][0] for i in range(len(dataset))]))


def test_cache_is_used_mended_and_shared(tmp_path, squares, monkeypatch):
    source = squares("ab", per_class=1)
    fresh = [np.asarray(CorruptedDataset(source, "snow", 2)[i][0]) for i in range(2)]
    cached = CorruptedDataset(source, "snow", 2, cache=str(tmp_path / "made" / "here"))
    assert all(np.array_equal(cached[i][0], fresh[i]) for i in range(2))
    files = sorted(tmp_path.rglob("*.png"))
    assert len(files) == 2 and not list(tmp_path.rglob("*.part"))
    (tmp_path / "any").touch()
    assert {path.stat().st_mode for path in files} == {(tmp_path / "any").stat().st_mode}, "others can read them too"

    content = files[0].read_bytes()
    short_header = content[:8] + (9).to_bytes(4, "big") + content[12:25] + zlib.crc32(content[12:25]).to_bytes(4, "big")
    for damaged in (content[:50], short_header, b""):
        files[0].write_bytes(damaged)
        assert all(np.array_equal(cached[i][0], fresh[i]) for i in range(2))
    monkeypatch.setattr(module, "corrupt", None)
    assert all(np.array_equal(cached[i][0], fresh[i]) for i in range(2))


@pytest.mark.parametrize("kind", ["pil", "grey", "array", "tensor", "grey tensor"])
def test_an_input_keeps_its_type_and_channels(image, kind):
    value = {
        "pil": image,
        "grey": image.convert("L"),
        "array": np.asarray(image),
        "tensor": to_tensor(image),
        "grey tensor": to_tensor(image.convert("L")),
    }[kind]
    result, target, task = CorruptedDataset([(value, 3, 9)], "contrast", 4)[0]
    assert type(result) is type(value) and (target, task) == (3, 9)
    shape = lambda x: (x.size, x.mode) if isinstance(x, Image.Image) else (tuple(x.shape), x.dtype)  # noqa: E731
    assert shape(result) == shape(value)
    if kind == "tensor":
        assert torch.equal(result, to_tensor(corrupt(image, "contrast", 4)))


def test_old_benchmarks_of_avalanche_can_be_corrupted(squares):
    plain = nc_benchmark(
        squares("abcd"), squares("abcd", seed=1), 2, task_labels=True, seed=3, eval_transform=to_tensor
    )
    shifted = with_corruptions(plain, "contrast", 5)
    clean, grey = plain.test_stream[1].dataset, shifted.streams["ood_contrast_5"][1].dataset
    assert len(clean) == len(grey) and list(grey[0][1:]) == list(clean[0][1:])
    assert grey[0][0].std() < 0.2 * clean[0][0].std()


def test_pickled_corrupted_dataset_is_equal(squares):
    dataset = CorruptedDataset(squares("ab"), "frost", 1, seed=4)
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[3][0], dataset[3][0]) and again.targets == dataset.targets


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: with_corruptions(b, "foggy"), "Unknown corruption 'foggy': did you mean 'fog'"),
        (lambda b: with_corruptions(b, "fog", stream="tset"), "Unknown stream 'tset': did you mean 'test'"),
        (lambda b: with_corruptions(b, ["fog", "fog"]), "'fog' is given twice"),
        (lambda b: with_corruptions(b, "fog", constants="cifer"), "Unknown constants 'cifer': did you mean 'cifar'"),
        (lambda b: with_corruptions(b, "fog", 6), "severity 6 does not exist"),
        (lambda b: with_corruptions(b, "fog", (1, 1)), "must name at least one severity, and each once"),
        (lambda b: with_corruptions(with_corruptions(b, "fog", 1), "fog", 1), "has a stream 'ood_fog_1' already"),
        (lambda b: with_corruptions(b, "fog", 1).streams["ood_fog_1"][0].dataset[0], "8 x 8 pixels is too small"),
        (lambda b: CorruptedDataset([("text", 0)], "fog", 1)[0], "the dataset gives str"),
        (
            lambda b: CorruptedDataset([(torch.linspace(-1, 1, 3072).view(3, 32, 32), 0)], "fog", 1)[0],
            "images in [0, 1], but the dataset gives values from -1 to 1",
        ),
    ],
)
def test_wrong_arguments_raise_one_clear_sentence(call, message, one_sentence):
    one_sentence(lambda: call(split_digits()), message)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    module._library.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'ftp-cl\[corruptions\]'"):
        with_corruptions(split_digits(), "fog")
    module._library.cache_clear()
    assert with_corruptions(split_digits(), ()).streams.keys() == split_digits().streams.keys()


def test_frost_covers_any_image_whichever_picture_is_drawn():
    for seed in range(12):
        assert corrupt(Image.new("RGB", (300, 63)), "frost", 1, seed=seed).size == (300, 63)
