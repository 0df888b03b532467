"""Masks in files, in the published layouts, and what is said of files that are wrong."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ftp_cl.benchmarks import data_identity
from ftp_cl.benchmarks.dense import CAMVID_CLASSES, camvid, mask_folder

CLASSES = ["background", "cell", "wall"]


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def truncate(path, end):
    path.write_bytes(path.read_bytes()[:end])


def some_mask(seed, values, size=(30, 40)):
    return np.random.default_rng(seed).choice(values, size)


@pytest.fixture
def own(tmp_path):
    for number, part in enumerate(("train", "test", "ood_dark")):
        for i in range(3):
            write(tmp_path / part / "images" / f"{i}.jpg", np.full((30, 40, 3), 40 * i + number))
            write(tmp_path / part / "masks" / f"{i}.png", some_mask(i, [0, 1, 2, 255]))
    return tmp_path


@pytest.fixture
def street(tmp_path):
    """As the SegNet tutorial has it: lists of absolute paths on another machine, indices with 11 for void."""
    for part, n in (("train", 3), ("val", 1), ("test", 2)):
        lines = []
        for i in range(n):
            write(tmp_path / part / f"{i}.png", np.random.default_rng(i).integers(0, 255, (36, 48, 3)))
            write(tmp_path / f"{part}annot" / f"{i}.png", some_mask(i, range(12), (36, 48)))
            lines.append(f"/SegNet/CamVid/{part}/{i}.png /SegNet/CamVid/{part}annot/{i}.png")
        (tmp_path / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_camvid_has_its_lists_classes_and_void_that_is_ignored(street):
    benchmark = camvid(street, corruptions=["fog"], severities=[3])
    sizes = benchmark.description["stream_sizes"]
    assert sizes == {"train": [3], "validation": [1], "test": [2], "ood_fog_3": [2]}
    assert benchmark.description["class_names"] == list(CAMVID_CLASSES)
    image, mask, _ = benchmark.test_stream[0].dataset[1]
    expected = some_mask(1, range(12), (36, 48))
    np.testing.assert_array_equal(mask, np.where(expected == 11, 255, expected))
    assert image.shape == (3, 36, 48)


def test_own_masks_of_indices(own):
    benchmark = mask_folder(own, CLASSES)
    assert benchmark.description["stream_sizes"] == {"train": [3], "test": [3], "ood_dark": [3]}
    np.testing.assert_array_equal(benchmark.train_stream[0].dataset[2][1], some_mask(2, [0, 1, 2, 255]))
    parts = mask_folder(own, CLASSES, 2, resize=[15, 20])
    assert parts.train_stream[0].dataset[0][1].shape == (15, 20)
    assert len(parts.train_stream) == 2


def test_masks_of_one_bit_have_the_classes_0_and_1(own):
    for path in own.glob("*/masks/*.png"):
        Image.fromarray(some_mask(0, [0, 1]).astype(bool)).save(path)
    mask = mask_folder(own, CLASSES[:2]).train_stream[0].dataset[0][1]
    np.testing.assert_array_equal(mask, some_mask(0, [0, 1]))


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_has_class_indices(own, bits):
    """Written by hand as the PNG specification has it, for Pillow does not write such grey."""
    mask = some_mask(0, [0, 1, 2])
    numbers = ((mask[..., None] >> np.arange(bits)[::-1]) & 1).reshape(30, -1)
    lines = b"".join(b"\0" + np.packbits(line.astype(np.uint8)).tobytes() for line in numbers)
    header = struct.pack(">IIBBBBB", 40, 30, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts)
    (own / "train/masks/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_array_equal(mask_folder(own, CLASSES).train_stream[0].dataset[0][1], mask)


def test_own_masks_in_colours(own):
    colours = {"background": [0, 0, 0], "cell": [255, 0, 0], "wall": [0, 128, 255], "ignored": [9, 9, 9]}
    table = np.zeros((256, 3), np.uint8)
    table[[0, 1, 2, 255]] = list(colours.values())
    for path in own.glob("*/masks/*.png"):
        write(path, table[np.asarray(Image.open(path))])
    benchmark = mask_folder(own, colours=colours)
    assert benchmark.description["class_names"] == CLASSES
    np.testing.assert_array_equal(benchmark.train_stream[0].dataset[2][1], some_mask(2, [0, 1, 2, 255]))
    write(own / "train/masks/1.png", np.full((30, 40, 3), 77))
    with pytest.raises(ValueError, match=r"1200 pixels of the masks have colours .*1\.png"):
        mask_folder(own, colours=colours)


def test_other_files_are_other_data(own):
    before = data_identity(mask_folder(own, CLASSES))
    write(own / "test/masks/0.png", some_mask(0, [0, 1, 2]))
    after = data_identity(mask_folder(own, CLASSES))
    assert before["train"] == after["train"] and before["test"] != after["test"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: write(root / "train/masks/1.png", some_mask(0, [0], (30, 41))), "1.png has 41 x 30"),
        (lambda root: write(root / "train/masks/1.png", some_mask(0, [7, 0])), "pixels of the masks have values"),
        (lambda root: (root / "test/masks/0.png").unlink(), r"1 images have no mask: .*0.jpg"),
        (lambda root: (root / "test/images/0.jpg").unlink(), r"1 masks have no image: .*0.png"),
        (lambda root: write(root / "test/images/0.bmp", np.zeros((30, 40, 3))), r"0.bmp and .*0.jpg would"),
        (lambda root: [write(root / f"test/masks/{i}.png", np.zeros((30, 40))) for i in range(3)], "class cell, wall"),
        (lambda root: write(root / "train/masks/0.png", np.zeros((30, 40, 3))), "has colours"),
        (lambda root: truncate(root / "train/masks/0.png", 60), r"The mask .*0.png cannot be read"),
        (lambda root: truncate(root / "test/images/0.jpg", 9), r"The image .*0.jpg cannot be read"),
        (lambda root: [write(root / f"train/{a}/0.{b}", np.ones((5, 9, c) if c else (5, 9)))
                       for a, b, c in (("images", "jpg", 3), ("masks", "png", 0))], "several sizes"),
    ],
)  # fmt: skip
def test_wrong_files_are_told_in_a_sentence(own, change, words):
    change(own)
    with pytest.raises(ValueError, match=words):
        mask_folder(own, CLASSES)


def test_truncated_images_are_named_when_they_are_read(own):
    truncate(own / "train/images/0.jpg", -30)
    with pytest.raises(ValueError, match=r"The image .*0.jpg cannot be read \((?i:.*truncated)"):
        mask_folder(own, CLASSES).train_stream[0].dataset[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_names": ["background", "cell", "cell"]}, "2 classes of the masks are called 'cell'"),
        ({"class_names": CLASSES, "resize": [8]}, r"resize=\[8\] must be height and width"),
        ({"class_names": CLASSES, "resize": [0, 8]}, "must be height and width"),
        ({"colours": {"cell": [1, 2, 3], "wall": [1, 2, 3]}}, "cell and wall have the same colour"),
        ({"colours": {"cell": [1, 2, 300]}}, r"colour of cell is \[1, 2, 300\]"),
        ({"colours": {"cell": [1, 2]}}, "red, green and blue from 0 to 255"),
    ],
)
def test_options_that_cannot_be_are_told_in_a_sentence(own, options, words):
    with pytest.raises(ValueError, match=words):
        mask_folder(own, **options)


def test_missing_folders_and_names_are_told(own, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        mask_folder(own / "train", CLASSES)
    with pytest.raises(ValueError, match="names of the classes are needed"):
        mask_folder(own)
    with pytest.raises(FileNotFoundError, match=r"train\.txt"):
        camvid(own)
