"""Readers of image files and folders: nothing is turned, dropped or compared wrongly in silence, and nothing hangs."""

import os
import resource
import unicodedata

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import center_crop, resize

from ftp_cl.benchmarks import DomainNet, ImageFolder, ImageNetR, domainnet, few_labels, image_folder, with_ood
from ftp_cl.benchmarks.class_incremental import ClassSplit, split_classes
from ftp_cl.benchmarks.image_files import StoredImage, read_image

COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def turned(path, orientation=6):
    """Save an image whose left half is black and whose right half is white, to be shown with another side up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_own_images_are_turned_as_a_viewer_turns_them(tmp_path, suffix):
    # Orientation 6: the camera lay on its side, a viewer turns the image clockwise, so that left becomes top.
    turned(tmp_path / "train" / "cat" / f"0.{suffix}")
    image = np.asarray(ImageFolder(tmp_path / "train", None)[0][0])
    assert image.shape == (64, 32, 3) and image[:24].max() < 40 and image[40:].min() > 215


def test_copies_of_own_images_are_turned_and_published_images_are_not(tmp_path, imagenet_r_tree):
    for part in ("train", "test"):
        for k in range(2):
            turned(tmp_path / part / "cat" / f"{k}.jpg")
    whole = image_folder(tmp_path, 1, size=32)
    copy = few_labels(whole, per_class=1).train_stream[0].dataset[0][0]
    assert copy[:, 0].max() < 0.2 and copy[:, -1].min() > 0.8

    train = ImageNetR(imagenet_r_tree, "train", size=None)
    path = train.root / train.paths[0]
    turned(path)
    assert train[0][0].size == (64, 32)
    drawing = np.zeros((16, 16, 4), np.uint8)
    drawing[..., 0], drawing[4:8, 4:8, 3] = 200, 255
    Image.fromarray(drawing).save(path, "PNG")
    assert (np.asarray(train[0][0]) == [200, 0, 0]).all()


def test_a_class_has_one_name_however_its_letters_are_composed(tmp_path, image_writer):
    for part, name in (("train", COMPOSED), ("test", APART), ("ood_night", APART)):
        for k in range(2):
            image_writer(tmp_path / part / name / f"{k}.png", seed=k)
            image_writer(tmp_path / part / "tea" / f"{k}.png", seed=k)
    benchmark = image_folder(tmp_path, 2, size=16)
    assert benchmark.description["stream_sizes"] == {"train": [2, 2], "test": [2, 2], "ood_night": [2, 2]}
    assert ImageFolder(tmp_path / "test").classes == [COMPOSED, "tea"]
    renamed = with_ood(benchmark, rename={APART: "tea", "tea": COMPOSED}, other=ImageFolder(tmp_path / "train"))
    assert renamed.description["ood"]["ood_other"]["classes"] == [0, 1]
    image_writer(tmp_path / "test" / COMPOSED / "0.png")
    with pytest.raises(ValueError, match=f"2 classes of .*test are called '{COMPOSED}'"):
        image_folder(tmp_path, 2)


def test_names_that_differ_in_capitals_only_are_not_left_out_in_silence(tmp_path, image_writer):
    for part, name in (("train", "cat"), ("test", "cat"), ("ood_night", "Cat")):
        image_writer(tmp_path / part / name / "0.png")
        image_writer(tmp_path / part / "dog" / "0.png")
    with pytest.raises(ValueError, match=r"'Cat' of the dataset 'night' and 'cat' of the benchmark differ in capitals"):
        image_folder(tmp_path, 2)


def test_lists_of_domainnet_may_compose_letters_in_two_ways(domainnet_tree, image_writer):
    for part, name in (("train", COMPOSED), ("test", APART)):
        image_writer(domainnet_tree / "real" / name / f"{part}.jpg")
        with (domainnet_tree / f"real_{part}.txt").open("a", encoding="utf-8") as file:
            file.write(f"real/{name}/{part}.jpg 4\n")
    sizes = domainnet(5, dataset_root=domainnet_tree, ood_domains=()).description["stream_sizes"]
    assert sorted(sizes["test"]) == [1, 3, 3, 3, 3]
    assert DomainNet(domainnet_tree, "real", "test").classes[4] == COMPOSED


def test_images_below_the_folder_of_a_class_belong_to_it_and_hidden_ones_to_none(tmp_path, image_writer):
    for name in ("0.png", "more/1.JPEG", "more/deeper/2.jfif", ".hidden/3.png", "._4.png", "more/.5.png"):
        image_writer(tmp_path / "cat" / "x.png")
        path = tmp_path / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cat" / "x.png").rename(path)
    (tmp_path / "cat" / "notes.txt").write_text("none")
    (tmp_path / ".thumbnails").mkdir()
    dataset = ImageFolder(tmp_path, size=16)
    assert dataset.paths == ["cat/0.png", "cat/more/1.JPEG", "cat/more/deeper/2.jfif"] and dataset.classes == ["cat"]
    assert len(dataset[2][0].getbands()) == 3
    (tmp_path / "cat" / "more" / "round").symlink_to(tmp_path / "cat")
    with pytest.raises(ValueError, match="round is a link to a folder that it lies in"):
        ImageFolder(tmp_path)
    (tmp_path / "cat" / "more" / "round").unlink()
    image_writer(tmp_path / "beside.jpg")
    with pytest.raises(ValueError, match=r"beside\.jpg lies beside the folders of the classes"):
        ImageFolder(tmp_path)


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, image_writer, domainnet_tree):
    image_writer(tmp_path / "own" / "cat" / "0.png")
    odd = tmp_path / "own" / "cat" / "1.png"
    os.mkfifo(odd)
    with pytest.raises(ValueError, match=r"1\.png is no file"):
        ImageFolder(tmp_path / "own")
    odd.unlink()
    odd.symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"1\.png is a link to nothing"):
        ImageFolder(tmp_path / "own")
    odd.unlink()
    dataset = ImageFolder(tmp_path / "own")
    (tmp_path / "own" / "cat" / "0.png").unlink()
    os.mkfifo(tmp_path / "own" / "cat" / "0.png")
    for read in (dataset.__getitem__, dataset.stored_image, dataset.image_identity):
        with pytest.raises(ValueError, match=r"0\.png is no file"):
            read(0)
    listed = domainnet_tree / DomainNet(domainnet_tree, "real", "train").paths[3]
    listed.unlink()
    os.mkfifo(listed)
    with pytest.raises(FileNotFoundError, match=f"1 of the 80 images .*{listed.name}"):
        DomainNet(domainnet_tree, "real", "train")


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_images_of_other_modes_become_rgb(imagenet_r_tree, image_writer, mode):
    image_writer(imagenet_r_tree / "imagenet-r" / "n01443537" / "art_0.jpg", mode=mode)
    dataset = ImageNetR(imagenet_r_tree, "train", size=32)
    assert all(dataset[i][0].mode == "RGB" and dataset[i][0].size == (32, 32) for i in range(len(dataset)))


def test_sixteen_bits_become_eight_and_what_is_transparent_white(tmp_path, one_sentence):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    expected = np.tile((ramp[0] // 257).astype(np.uint8), (64, 1))
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert (np.asarray(read_image(tmp_path / name))[..., 0] == expected).all()

    for kind in (np.int32, np.uint16):  # integers that hold 8 bits
        Image.fromarray(np.arange(256, dtype=kind).reshape(16, 16)).save(tmp_path / "few.tif")
        assert (np.asarray(read_image(tmp_path / "few.tif"))[..., 0].ravel() == np.arange(256)).all()

    drawing = np.zeros((16, 16, 4), np.uint8)
    drawing[4:8, 4:8, 3] = 255
    Image.fromarray(drawing).save(tmp_path / "drawing.png")
    found = np.asarray(read_image(tmp_path / "drawing.png"))
    assert (found[4:8, 4:8] == 0).all() and found.sum() == 255 * 3 * (256 - 16)

    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "floats.tif")
    Image.fromarray(ramp.astype(np.int32) * 2).save(tmp_path / "large.tif")
    one_sentence(lambda: read_image(tmp_path / "floats.tif"), "floats.tif cannot be read", "floating point")
    one_sentence(lambda: read_image(tmp_path / "large.tif"), "0 to 131070, are not those of 8 or 16 bits")


def test_truncated_images_are_named(imagenet_r_tree, one_sentence):
    dataset = ImageNetR(imagenet_r_tree, "train")
    path = imagenet_r_tree / "imagenet-r" / dataset.paths[5]
    path.write_bytes(path.read_bytes()[:400])
    one_sentence(lambda: dataset[5], str(path), "cannot be read", "truncated")
    path.write_bytes(b"no image at all")
    one_sentence(lambda: dataset[5], str(path), "cannot be read")
    path.unlink()
    one_sentence(lambda: dataset[5], str(path), "is missing")


def test_image_as_it_is_stored_without_a_size(imagenet_r_tree):
    assert ImageNetR(imagenet_r_tree, "test", size=None)[0][0].size == (40, 36)


def test_sixteen_bits_that_may_be_fewer_are_refused(tmp_path):
    ramp = np.linspace(0, 1, 64)[None].repeat(8, 0)
    for largest, name in ((4095, "12.png"), (1023, "10.tif"), (16383, "14.png")):
        Image.fromarray((ramp * largest).astype(np.uint16)).save(tmp_path / name)
        with pytest.raises(
            ValueError, match=f"{name} cannot be read .*about {largest} of 65535, as in images of 10, 12"
        ):
            read_image(tmp_path / name)
    import cv2

    colour = (ramp[..., None] * [1, 0.5, 0.2]).astype(np.float64)
    cv2.imwrite(str(tmp_path / "dark.png"), (colour * 4095).astype(np.uint16))
    with pytest.raises(ValueError, match="as in images of 10, 12"):
        read_image(tmp_path / "dark.png")
    cv2.imwrite(str(tmp_path / "full.png"), (colour * 65535).astype(np.uint16)[..., ::-1])
    found = np.asarray(read_image(tmp_path / "full.png")).astype(int)
    assert abs(found - (colour * 255)).max() <= 1


def test_animations_palettes_and_other_colours(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (np.asarray(read_image(tmp_path / "moving.gif")) == [255, 0, 0]).all()
    clear = Image.new("P", (8, 8), 1)
    clear.putpalette([0, 0, 0, 10, 20, 30])
    clear.save(tmp_path / "clear.png", transparency=1)
    assert np.asarray(read_image(tmp_path / "clear.png")).min() == 255
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    assert (np.asarray(read_image(tmp_path / "print.tif")) == [255, 0, 0]).all()


def test_class_indices_of_any_dataset_are_never_rounded(squares):
    def halves(change):
        dataset = squares("abcd")
        dataset.targets = [change(c) for c in dataset.targets]
        return dataset

    split = ClassSplit(2, 0)
    whole = split_classes("mine", halves(np.int64), halves(np.uint8), split, {})
    assert all(type(c) is int for e in whole.train_stream for c in e.classes_in_this_experience)
    with pytest.raises(ValueError, match=r"The dataset to train on: item 0 has the class 0\.5"):
        split_classes("mine", halves(lambda c: c + 0.5), squares("abcd"), split, {})
    with pytest.raises(ValueError, match=r"stream 'test': item 0 has the class 0\.0"):
        split_classes("mine", squares("abcd"), halves(float), split, {})
    with pytest.raises(ValueError, match=r"The dataset 'other': item 0 has the class 0\.0"):
        with_ood(whole, other=halves(float))
    with pytest.raises(ValueError, match=r"fixed_class_order: item 1 has the class 1\.5"):
        split_classes("mine", squares("abcd"), squares("abcd"), ClassSplit(2, 0, fixed_class_order=[0, 1.5, 2, 3]), {})


@pytest.mark.parametrize("name", ["0.ppm", "0.gif"])
def test_an_image_without_pixels_is_refused(tmp_path, name):
    (tmp_path / "cat").mkdir()
    contents = {"0.ppm": b"P6 0 0 255\n", "0.gif": b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\2D\1\0;"}
    (tmp_path / "cat" / name).write_bytes(contents[name])
    for size in (None, 32):
        with pytest.raises(ValueError, match="cannot be read"):
            ImageFolder(tmp_path, size)[0]
        with pytest.raises(ValueError, match="cannot be read"):
            StoredImage(contents[name], size, True).decode()


@pytest.mark.parametrize("size", [(40, 36), (36, 40), (300, 20), (20, 301), (64, 64)])
def test_sizes_are_those_of_torchvision(tmp_path, image_writer, size):
    image_writer(tmp_path / "cat" / "0.png", size=size)
    expected = center_crop(resize(read_image(tmp_path / "cat" / "0.png"), [24]), [24, 24])
    assert np.array_equal(np.asarray(ImageFolder(tmp_path, 24)[0][0]), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1)])
def test_of_a_very_long_image_the_middle_alone_is_resized(tmp_path, size):
    (tmp_path / "cat").mkdir()
    pixels = np.zeros((max(size), 3), np.uint8)
    pixels[29_980:30_020] = 255
    Image.fromarray(pixels.reshape(size[1], size[0], 3)).save(tmp_path / "cat" / "0.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = np.asarray(ImageFolder(tmp_path, 224)[0][0])
    assert image.shape == (224, 224, 3) and image.min() == 255
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("label", ["345", "99999999999", "9" * 5000])
def test_a_class_beyond_those_of_domainnet_is_named_before_anything_is_made(domainnet_tree, label):
    with (domainnet_tree / "real_train.txt").open("a") as file:
        file.write(f"real/airplane/x.jpg {label}\n")
    with pytest.raises(ValueError, match=r"line 81: the class [39].* is none of DomainNet's, 0 to 344"):
        DomainNet(domainnet_tree, "real", "train")
