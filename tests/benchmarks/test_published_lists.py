"""ImageNet with its shifted sets, and the lists of FTP's released code, on small trees in the published formats."""

import pickle

import pytest

from ftp_cl.benchmarks import DomainNet, ImageNet, domainnet, imagenet

# ---- ImageNet --------------------------------------------------------------------------------------------------------

# Twelve of ImageNet's classes; in the order of text, folder 10 would come before folder 2.
WNIDS = [f"n{number:08}" for number in (1440764, 1443537, 1484850, 1491361, 1494475, 1496331)]
WNIDS += [f"n{number:08}" for number in (1498041, 1514668, 1514859, 1518878, 1530575, 1531178)]


@pytest.fixture
def imagenet_tree(tmp_path, image_writer):
    for target, wnid in enumerate(WNIDS):
        for k in range(2):
            image_writer(tmp_path / "train" / wnid / f"{wnid}_{k}.JPEG", seed=target)
        image_writer(tmp_path / "val" / wnid / f"ILSVRC2012_val_{target:08}.JPEG", seed=target)
    for number in (2, 10):
        v2 = tmp_path / "imagenetv2-matched-frequency-format-val" / str(number)
        for k in range(number):
            image_writer(v2 / f"{k}.jpeg", seed=number)
    for folder, wnids in (("imagenet-a", WNIDS[1:3]), ("imagenet-r", [WNIDS[11], "n09999999"]), ("sketch", WNIDS)):
        for wnid in wnids:
            image_writer(tmp_path / folder / wnid / "1.jpg")
    (tmp_path / "imagenet-a" / "README.txt").write_text("ImageNet-A")
    return tmp_path


def test_folders_of_imagenet_v2_are_numbers(imagenet_tree, sizes):
    benchmark = imagenet(imagenet_tree, [6, 6], size=16, fixed_class_order=range(12))
    # Class 2 is in the first experience and class 10 in the second, with as many images as their number.
    assert sizes(benchmark) == {
        **{"train": [12, 12], "test": [6, 6], "ood_v2": [2, 10]},
        **{"ood_a": [2], "ood_r": [1], "ood_sketch": [6, 6]},
    }
    assert benchmark.description["ood"]["ood_v2"] == {"classes": [2, 10], "left_out": []}
    assert benchmark.description["ood"]["ood_r"] == {"classes": [11], "left_out": ["n09999999"]}
    dataset = ImageNet(imagenet_tree / "imagenetv2-matched-frequency-format-val", 16, WNIDS)
    assert dataset.classes == [WNIDS[2], WNIDS[10]]
    assert pickle.loads(pickle.dumps(dataset)).paths == dataset.paths


def test_numbers_beyond_a_part_of_the_classes_are_imagenets_own(imagenet_tree, image_writer, sizes):
    image_writer(imagenet_tree / "imagenetv2-matched-frequency-format-val" / "999" / "1.jpeg")
    for part in ("train", "val"):
        for wnid in WNIDS[:10]:
            for file in (imagenet_tree / part / wnid).iterdir():
                file.unlink()
            (imagenet_tree / part / wnid).rmdir()
    # Of the two classes that are left, n01530575 is number 10 of the thousand; folders 2 and 999 are of others.
    benchmark = imagenet(imagenet_tree, ood_sets="v2", size=16)
    assert benchmark.description["ood"]["ood_v2"] == {"classes": [0], "left_out": [WNIDS[2], "n15075141"]}
    assert sizes(benchmark)["ood_v2"] == [10]


def test_sets_that_do_not_map_to_the_classes_are_named(imagenet_tree, image_writer, one_sentence):
    image_writer(imagenet_tree / "train" / "n09999999" / "1.JPEG")
    one_sentence(lambda: imagenet(imagenet_tree), "1 are in one of them only, the first is n09999999")
    image_writer(imagenet_tree / "val" / "n09999999" / "1.JPEG")
    v2 = imagenet_tree / "imagenetv2-matched-frequency-format-val"
    image_writer(v2 / "13" / "1.jpeg")
    one_sentence(lambda: imagenet(imagenet_tree), "folder 13", "none of the 13 classes", "n09999999 is among these")
    image_writer(v2 / "cat" / "1.jpeg")
    one_sentence(lambda: imagenet(imagenet_tree), "cat is no number")
    for wnid in WNIDS:
        (imagenet_tree / "sketch" / wnid / "1.jpg").unlink()
        (imagenet_tree / "sketch" / wnid).rmdir()
    image_writer(imagenet_tree / "sketch" / "n07777777" / "1.jpg")
    one_sentence(lambda: imagenet(imagenet_tree, ood_sets="sketch"), "No class of the dataset 'sketch'", "n07777777")
    image_writer(imagenet_tree / "sketch" / "goldfish" / "1.jpg")
    one_sentence(lambda: imagenet(imagenet_tree, ood_sets="sketch"), "goldfish is called like no WordNet ID")
    (imagenet_tree / "imagenet-a").rename(imagenet_tree / "a")
    one_sentence(lambda: imagenet(imagenet_tree, ood_sets="a"), "imagenet-a is missing", "leave a out of ood_sets")


# ---- DomainNet by the lists of the released code ---------------------------------------------------------------------


@pytest.fixture
def split_lists(domainnet_tree):
    """Lists as released: of a class 16 images to train on, 4 to validate on; a quarter at 10 %."""
    folder = domainnet_tree / "lists"
    folder.mkdir()
    lines = (domainnet_tree / "real_train.txt").read_text().splitlines(keepends=True)
    parts = {
        "train": [x for i, x in enumerate(lines) if i % 20 < 16],
        "val": [x for i, x in enumerate(lines) if i % 20 > 15],
    }
    for part, items in parts.items():
        (folder / f"real_{part}_split.txt").write_text("".join(reversed(items)))
        (folder / f"real_{part}_10_percent_split.txt").write_text("".join(items[::4]))
    (domainnet_tree / "real_test.txt").rename(folder / "real_test.txt")
    (domainnet_tree / "real_train.txt").unlink()
    return folder


def test_domainnet_follows_the_lists_of_the_released_code(domainnet_tree, split_lists, sizes):
    options = {"dataset_root": domainnet_tree, "split_lists": split_lists, "ood_domains": ["sketch"], "size": 16}
    benchmark = domainnet(1, **options)
    assert sizes(benchmark) == {"train": [64], "test": [12], "validation": [16], "ood_sketch": [8]}
    tenth = domainnet(2, label_percent=10, **options)
    assert sizes(tenth) == {"train": [8, 8], "test": [6, 6], "validation": [2, 2], "ood_sketch": [4, 4]}
    assert tenth.description["label_percent"] == 10 and tenth.description["split_lists"] == str(split_lists)
    assert sizes(domainnet(1, validation_fraction=0.25, **options))["train"] == [48]
    dataset = DomainNet(domainnet_tree, "real", "validation", 16, split_lists=split_lists, percent=10)
    assert pickle.loads(pickle.dumps(dataset)).paths == dataset.paths


def test_lists_that_are_missing_or_name_what_is_missing_are_named(domainnet_tree, split_lists, one_sentence):
    call = lambda **more: domainnet(1, dataset_root=domainnet_tree, split_lists=split_lists, **more)  # noqa: E731
    one_sentence(lambda: call(label_percent=7), "real_train_7_percent_split.txt is missing", "1, 5, 10, 20, 50 and 100")
    one_sentence(lambda: call(train_domains="clipart"), "clipart_train_100_percent_split.txt is missing")
    (domainnet_tree / "real/airplane/real_001_000003.jpg").unlink()
    (domainnet_tree / "real/airplane/real_001_000007.jpg").unlink()
    one_sentence(call, "2 of the 64 images that", "real_train_split.txt names are missing", "real_001_000007.jpg")
    file = split_lists / "real_val_split.txt"
    file.write_text(file.read_text() + (split_lists / "real_test.txt").read_text().splitlines()[0])
    (split_lists / "real_train_split.txt").write_text((split_lists / "real_train_10_percent_split.txt").read_text())
    one_sentence(call, "is in the test list and in the validation list of its domain in", "lists: remove it")
