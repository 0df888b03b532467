"""Scenes of emoji: masks are those of the alpha, styles differ in the drawing alone, tasks see their own classes."""

import pickle

import numpy as np
import pytest
from numpy.random import SeedSequence, default_rng
from PIL import Image

from ftp_cl.benchmarks import CLASSES, data_identity, few_labels
from ftp_cl.benchmarks._sources import sources
from ftp_cl.benchmarks.dense import SCENE_CLASSES, EmojiScenes, emoji_scenes
from ftp_cl.benchmarks.emoji_domains import drawings

SMALL = {"train_scenes": 60, "validation_scenes": 6, "test_scenes": 12, "size": 64, "ood_domains": ["line_art"]}


@pytest.fixture(scope="module")
def whole():
    return emoji_scenes(**SMALL)


@pytest.fixture(scope="module")
def tasks():
    return emoji_scenes(4, **SMALL)


def composed_by_hand(domain, number, size=128):
    """The scene from its numbers, pixel by pixel: an oracle in plain NumPy; [y, x] -> (class, colour or None)."""
    generator = default_rng(SeedSequence(0, spawn_key=(len(CLASSES) + 2, number)))
    generator.uniform(120, 255, (2, 3))
    grounds = [lambda: 0, generator.uniform, lambda: generator.integers(4, 16), lambda: generator.uniform(size=(8, 8))]
    grounds[generator.integers(4)]()
    mask = np.zeros((size, size), int)
    for _ in range(generator.integers(3, 7)):
        label = generator.integers(20)
        found = drawings(domain, "test")[CLASSES[label]]
        drawing = found[sorted(found)[generator.integers(len(found))]]
        side = generator.integers(24, 65)
        left, top = (generator.integers(size - side + 1) for _ in range(2))
        alpha = np.asarray(drawing.resize((side, side), Image.Resampling.LANCZOS))[..., 3]
        for y, x in np.argwhere(alpha >= 128):
            mask[top + y, left + x] = label + 1
    return mask


@pytest.mark.parametrize("domain", ["noto", "line_art"])
def test_a_pixel_is_of_the_topmost_emoji_that_covers_it(domain):
    scenes = EmojiScenes(domain, "test", 6)
    for number in range(6):
        np.testing.assert_array_equal(scenes.masks[number], composed_by_hand(domain, number))


def test_line_art_has_holes_where_the_ground_shows():
    face = drawings("line_art", "test")["face"]
    alpha = np.asarray(next(iter(face.values())))[..., 3]
    assert (alpha[20:44, 20:44] < 128).any() and (alpha >= 128).any()


def test_styles_show_the_same_scenes_and_grounds():
    noto, twemoji = (EmojiScenes(domain, "test", 20) for domain in ("noto", "twemoji"))
    same = (noto.masks == twemoji.masks).mean()
    assert 0.8 < same < 1, "the outlines of an emoji differ from style to style"
    ground = (noto.masks == 0) & (twemoji.masks == 0)
    assert np.mean(noto.data[ground] == twemoji.data[ground]) > 0.9, "but for half transparent borders"
    assert noto.image_identity(3) == twemoji.image_identity(3)


def test_emoji_of_a_split_are_shown_in_no_other():
    shown = {split: EmojiScenes("noto", split, 1)._drawings("noto") for split in ("train", "validation", "test")}
    names = {split: {(label, name) for label in found for name in found[label]} for split, found in shown.items()}
    assert not names["train"] & names["validation"] and not (names["train"] | names["validation"]) & names["test"]
    assert all(found[label] for found in shown.values() for label in CLASSES)


def test_scenes_are_drawn_alike_again_and_the_first_are_the_same_for_any_number():
    few, more = EmojiScenes("noto", "train", 3), EmojiScenes("noto", "train", 5)
    np.testing.assert_array_equal(few.data, more.data[:3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(few)).masks, few.masks)
    assert not np.array_equal(few.data, EmojiScenes("noto", "train", 3, seed=1).data)


def test_one_experience_has_whole_masks_and_the_streams_that_were_asked_for(whole):
    benchmark = whole
    assert set(benchmark.streams) == {"train", "validation", "test", "ood_line_art"}
    image, mask, task = benchmark.train_stream[0].dataset[0]
    assert image.shape == (3, 64, 64) and mask.shape == (64, 64) and task == 0
    assert benchmark.train_stream[0].classes_in_this_experience == [
        0,
        *benchmark.description["experiences"][0]["classes"][1:],
    ]
    assert benchmark.description["class_names"] == list(SCENE_CLASSES)


def test_overlapped_tasks_have_all_images_of_their_classes_and_all_others_as_background(tasks):
    benchmark = tasks
    whole = EmojiScenes("noto", "train", 60, 64)
    for experience in benchmark.train_stream:
        own = [c for c in experience.classes_in_this_experience if c]
        expected = [np.where(np.isin(mask, own), mask, 0) for mask in whole.masks if np.isin(mask, own).any()]
        found = [item[1].numpy() for item in experience.dataset]
        assert len(own) == 5
        np.testing.assert_array_equal(found, expected)
    assert sorted(c for e in benchmark.train_stream for c in e.classes_in_this_experience) == list(range(21))
    test = benchmark.test_stream
    assert len({id(e.dataset) for e in test}) == 1 and len(test[0].dataset) == 12
    np.testing.assert_array_equal(test[0].dataset[0][1], EmojiScenes("noto", "test", 12, 64).masks[0])


def test_styles_one_after_another():
    benchmark = emoji_scenes(train_domains=["noto", "blob"], incremental="domains", **SMALL)
    assert [len(e.dataset) for e in benchmark.train_stream] == [60, 60]
    assert [len(e.dataset) for e in benchmark.test_stream] == [12, 12]
    assert len(benchmark.streams["ood_line_art"]) == 1


def test_corrupted_images_keep_their_masks():
    benchmark = emoji_scenes(2, corruptions=["contrast"], severities=[5], **SMALL)
    stream = benchmark.streams["ood_contrast_5"]
    (before, mask, _), (after, same, _) = (s[0].dataset[0] for s in (benchmark.test_stream, stream))
    assert (mask == same).all() and after.std() < 0.5 * before.std()
    assert stream[0].dataset is stream[1].dataset


def test_few_labels_are_few_annotated_images_and_the_masks_of_others_are_gone(whole):
    benchmark = few_labels(whole, per_class=8)
    assert len(benchmark.train_stream[0].dataset) == 8
    assert len(benchmark.streams["unlabelled"][0].dataset) == 52
    assert benchmark.streams["unlabelled"][0].dataset[0][1] == -1
    assert benchmark.train_stream[0].dataset[0][1].shape == (64, 64)


def test_other_masks_are_other_data(tasks):
    one, other = tasks, emoji_scenes(4, **SMALL)
    assert data_identity(one) == data_identity(other)
    next(sources(other.test_stream[0].dataset)).raw.masks[0] += 1
    assert data_identity(one) != data_identity(other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"n_experiences": 3}, "does not divide the 20 classes"), ({"incremental": "styles"}, "classes, domains"),
     ({"train_scenes": 0}, "at least 1"), ({"train_domains": ["notoo"]}, "noto")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        emoji_scenes(**{**SMALL, **arguments})
