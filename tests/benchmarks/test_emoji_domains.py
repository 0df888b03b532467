"""The shipped archive holds what EmojiDomains promises, and EmojiDomains reads it rightly."""

import csv
import hashlib
import io
import pickle
import zipfile
from collections import defaultdict
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from ftp_cl.benchmarks import CLASSES, DOMAINS, EmojiDomains


@pytest.fixture(scope="module")
def archive():
    with zipfile.ZipFile(str(resources.files("ftp_cl.benchmarks") / "data" / "emoji_domains.zip")) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(archive):
    return list(csv.DictReader(io.StringIO(archive.read("index.csv").decode())))


def test_archive_has_612_emoji_of_20_classes_in_each_of_7_styles(rows):
    assert len(rows) == 612 * 7
    assert {row["domain"] for row in rows} == set(DOMAINS)
    assert sorted({row["class"] for row in rows}) == list(CLASSES)
    for domain in DOMAINS:
        assert len({row["name"] for row in rows if row["domain"] == domain}) == 612


def test_identities_classes_and_split_are_the_same_in_every_style(rows):
    of_style = defaultdict(set)
    for row in rows:
        of_style[row["domain"]].add((row["name"], row["class"], row["codepoints"], row["split"]))
    assert len(set(map(frozenset, of_style.values()))) == 1


def test_no_identity_is_in_both_splits(rows):
    splits = defaultdict(set)
    for row in rows:
        splits[row["name"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_60_percent_of_each_class_are_for_training(rows):
    for name in CLASSES:
        splits = [row["split"] for row in rows if row["class"] == name and row["domain"] == "noto"]
        assert splits.count("train") == round(0.6 * len(splits))


def test_archive_holds_the_indexed_files_and_no_others(archive, rows):
    assert sorted(archive.namelist()) == sorted([row["path"] for row in rows] + ["index.csv"])
    for row in rows:
        assert row["path"] == f"{row['domain']}/{row['split']}/{row['class']}/{row['name']}.webp"


def on_white(image):
    """By the definition of alpha, in whole numbers as Pillow rounds them."""
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(ground, image).convert("RGB"))


def test_every_file_has_64_by_64_pixels_and_on_white_those_of_the_archive_without_alpha(archive, rows):
    digest = hashlib.sha256()
    for path in sorted(row["path"] for row in rows):
        image = Image.open(io.BytesIO(archive.read(path)))
        # A drawing that fills its square has no alpha to store.
        assert image.mode in ("RGBA", "RGB") and (image.format, image.size) == ("WEBP", (64, 64)), path
        digest.update(on_white(image).tobytes())
    # Of the archive that stored results were made with, whose files held these pixels.
    assert digest.hexdigest() == "83c9d04327f2e1501248815dceaa59654dd7a78c218665ae857755701a194455"


def test_items_are_the_images_and_classes_of_the_archive(archive, rows):
    dataset = EmojiDomains("twemoji", "test")
    expected = [row for row in rows if row["domain"] == "twemoji" and row["split"] == "test"]
    assert len(dataset) == len(expected) == 244
    for index in (0, 100, 243):
        image, target = dataset[index]
        assert dataset.identities[index] == expected[index]["name"]
        assert dataset.domains[index] == "twemoji"
        assert dataset.classes[target] == expected[index]["class"]
        assert target == dataset.targets[index] and type(target) is int
        assert np.array_equal(np.asarray(image), on_white(Image.open(archive.open(expected[index]["path"]))))


def test_several_domains_are_appended_in_the_order_given():
    both = EmojiDomains(["line_art", "noto"], "train")
    assert both.domains == ["line_art"] * 368 + ["noto"] * 368
    assert both.identities[:368] == both.identities[368:]
    assert np.array_equal(both.data[368:], EmojiDomains("noto", "train").data)


@pytest.mark.parametrize("size", [8, 32, 96])
def test_images_are_resized_when_the_dataset_is_made(size):
    dataset = EmojiDomains("blob", "test", size=size)
    assert dataset.data.shape == (244, size, size, 3) and dataset.data.dtype == np.uint8
    image, _ = dataset[3]
    assert image.mode == "RGB" and image.size == (size, size)
    # The same drawing: the mean colour stays what it was.
    stored = EmojiDomains("blob", "test")
    assert np.allclose(dataset.data.mean((1, 2)), stored.data.mean((1, 2)), atol=8)


def test_transforms_are_applied_to_image_and_target():
    dataset = EmojiDomains("noto", "test", transform=lambda image: image.size, target_transform=lambda target: -target)
    assert dataset[200] == ((64, 64), -dataset.targets[200])


def test_pickle_is_small_and_gives_the_same_dataset():
    dataset = EmojiDomains(("noto", "blob"), "test", size=32)
    stored = pickle.dumps(dataset)
    assert len(stored) < 1000
    again = pickle.loads(stored)
    assert np.array_equal(again.data, dataset.data)
    assert (again.targets, again.identities, again.domains) == (dataset.targets, dataset.identities, dataset.domains)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "notto", "split": "train"}, "Unknown domain 'notto': did you mean 'noto'?"),
        ({"domain": ("noto", "lineart"), "split": "train"}, "did you mean 'line_art'?"),
        ({"domain": "photo", "split": "train"}, "did you mean 'noto'"),
        ({"domain": "xyz", "split": "train"}, "choose from noto, blob"),
        ({"domain": (), "split": "train"}, "No domain was given"),
        ({"domain": ("noto", "noto"), "split": "train"}, "'noto' is given twice"),
        ({"domain": "noto", "split": "training"}, "did you mean 'train'?"),
        ({"domain": "noto", "split": "train", "size": 4}, "the nearest is 8"),
        ({"domain": "noto", "split": "train", "size": 4096}, "the nearest is 512"),
        ({"domain": "noto", "split": "train", "size": 64.0}, "not a whole number of pixels"),
    ],
)
def test_wrong_arguments_are_named_with_the_nearest_right_ones(arguments, message, one_sentence):
    one_sentence(lambda: EmojiDomains(**arguments), message)
