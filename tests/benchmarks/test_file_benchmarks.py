"""ImageNet-R, DomainNet, Tiny ImageNet, CORe50, Fashion-MNIST and folders, on small trees in the published formats."""

import json
import pickle

import pytest
import yaml

from ftp_cl.benchmarks import (
    DomainNet,
    ImageNetR,
    core50,
    domainnet,
    domainnet_domains,
    image_folder,
    split_fashion_mnist,
    split_imagenet_r,
    split_tiny_imagenet,
)

# ---- ImageNet-R ------------------------------------------------------------------------------------------------------


@pytest.fixture
def lists(imagenet_r_tree):
    """Lists as rehearsal-free work has them: other paths before the last two parts, classes not in sorted order."""
    folder = imagenet_r_tree / "lists"
    folder.mkdir()
    wnids = ["n12267677", "n01443537", "n01494475", "n01484850"]
    for part, numbers in (("train", range(8)), ("test", range(8, 10))):
        items = [(f"data/imagenet-r/{wnid}/art_{k}.jpg", t) for k in numbers for t, wnid in enumerate(wnids)]
        content = {"data": [path for path, _ in items], "targets": [target for _, target in items]}
        (folder / f"imagenet-r_{part}.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_imagenet_r_draws_a_fifth_of_each_class_for_testing(imagenet_r_tree, sizes):
    benchmark = split_imagenet_r(2, dataset_root=imagenet_r_tree, size=32, seed=1)
    assert sizes(benchmark) == {"train": [16, 16], "test": [4, 4]}
    assert benchmark.train_stream[0].dataset[0][0].shape == (3, 32, 32)
    assert benchmark.description["division"] == "20 % of each class for testing, split_seed 0"
    train, test = (ImageNetR(imagenet_r_tree, part) for part in ("train", "test"))
    assert not set(train.paths) & set(test.paths) and len(train) + len(test) == 40
    assert train.classes == ["n01443537", "n01484850", "n01494475", "n12267677"]
    assert test.paths == ImageNetR(imagenet_r_tree, "test").paths
    assert test.paths != ImageNetR(imagenet_r_tree, "test", split_seed=5).paths


def test_imagenet_r_follows_lists_and_takes_their_classes(imagenet_r_tree, lists, sizes):
    train = ImageNetR(imagenet_r_tree, "train", lists)
    assert train.classes == ["n12267677", "n01443537", "n01494475", "n01484850"]
    assert all(train.classes[t] == path.split("/")[0] for path, t in zip(train.paths, train.targets, strict=True))
    benchmark = split_imagenet_r(4, dataset_root=imagenet_r_tree, split_lists=lists, size=32)
    assert sizes(benchmark) == {"train": [8] * 4, "test": [2] * 4}
    assert benchmark.description["division"] == f"lists in {lists}"
    assert json.loads(json.dumps(benchmark.description)) == benchmark.description


def edit(path, change):
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


def test_wrong_lists_of_imagenet_r_are_named(imagenet_r_tree, lists, one_sentence):
    def build():
        return ImageNetR(imagenet_r_tree, "train", lists)

    test_list, original = lists / "imagenet-r_test.yaml", (lists / "imagenet-r_test.yaml").read_text()
    edit(test_list, lambda c: c["targets"].__setitem__(3, 0))
    one_sentence(build, "imagenet-r_test.yaml gives n01484850/art_8.jpg the class 0", "n01484850 was class 3")
    test_list.write_text(original)
    edit(test_list, lambda c: c["targets"].pop())
    one_sentence(build, "has 8 paths in `data`, but 7 classes in `targets`")
    test_list.write_text(original)
    edit(test_list, lambda c: c["data"].__setitem__(0, "data/imagenet-r/n12267677/art_99.jpg"))
    one_sentence(build, "1 of the 8 images", "imagenet-r_test.yaml", "missing or empty", "n12267677/art_99.jpg")
    test_list.write_text("data: [")
    one_sentence(build, "imagenet-r_test.yaml is no mapping")
    test_list.unlink()
    one_sentence(build, "imagenet-r_test.yaml is missing", "CODA-Prompt")


def test_missing_imagenet_r_says_what_where_and_whence(tmp_path, one_sentence):
    call = lambda: split_imagenet_r(dataset_root=tmp_path, download=False)  # noqa: E731
    one_sentence(call, f"{tmp_path}/imagenet-r is missing", "imagenet-r.tar", "hendrycks/imagenet-r.tar")


# ---- DomainNet -------------------------------------------------------------------------------------------------------


def test_images_are_decoded_only_when_read(domainnet_tree, sizes):
    for path in (domainnet_tree / "real").rglob("*.jpg"):
        path.write_bytes(b"x")
    assert sum(sizes(domainnet(2, dataset_root=domainnet_tree))["train"]) == 80


def test_domainnet_trains_on_one_domain_with_the_others_as_ood_streams(domainnet_tree, sizes):
    benchmark = domainnet(2, dataset_root=domainnet_tree, size=32)
    others = ["clipart", "infograph", "painting", "quickdraw", "sketch"]
    assert list(benchmark.streams) == ["train", "test", *(f"ood_{d}" for d in others)]
    assert sizes(benchmark)["train"] == [40, 40] and sizes(benchmark)["ood_sketch"] == [4, 4]
    for mine, theirs in zip(benchmark.streams["ood_sketch"], benchmark.test_stream, strict=True):
        assert set(mine.dataset.targets) == set(theirs.dataset.targets)
    names = benchmark.description["experiences"][0]["names"]
    assert set(names) < {"aircraft_carrier", "airplane", "alarm_clock", "ambulance"}


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (5, 1), (10, 2), (20, 4), (50, 10), (100, 20)])
def test_share_of_labels_is_per_class_and_nested(domainnet_tree, percent, expected, sizes):
    options = {"dataset_root": domainnet_tree, "ood_domains": (), "seed": 4}
    benchmark = domainnet(1, label_percent=percent, **options)
    assert sizes(benchmark)["train"] == [4 * expected]
    kept = benchmark.description["training_identities"]
    if percent < 50:
        more = domainnet(1, label_percent=50, **options).description["training_identities"]
        assert all(kept[name] == more[name][:expected] for name in kept)


def test_domainnet_by_domains_has_all_classes_in_every_experience(domainnet_tree, sizes):
    benchmark = domainnet_domains(["real", "sketch"], dataset_root=domainnet_tree, size=32, validation_fraction=0.5)
    assert sizes(benchmark)["train"] == [40, 4] and sizes(benchmark)["test"] == [12, 8]
    assert sizes(benchmark)["validation"] == [40, 4]
    assert sizes(benchmark)["ood_clipart"] == [8]
    for experience in benchmark.train_stream:
        assert experience.classes_in_this_experience == [0, 1, 2, 3] and not experience.future_classes
    assert [e["domain"] for e in benchmark.description["experiences"]] == ["real", "sketch"]
    assert benchmark.train_stream[1].dataset[0][0].shape == (3, 32, 32)


def test_classes_that_a_list_lacks_are_left_out_and_recorded(domainnet_tree, sizes):
    lines = (domainnet_tree / "painting_train.txt").read_text().splitlines(keepends=True)
    (domainnet_tree / "painting_train.txt").write_text("".join(line for line in lines if not line.endswith(" 1\n")))
    benchmark = domainnet(3, dataset_root=domainnet_tree, train_domains="painting", ood_domains="real")
    assert benchmark.description["classes_left_out"] == ["airplane"]
    assert sorted(benchmark.description["class_order"]) == [0, 2, 3]
    assert sizes(benchmark) == {"train": [2, 2, 2], "test": [2, 2, 2], "ood_real": [3, 3, 3]}
    assert benchmark.description["ood"]["ood_real"]["left_out"] == ["airplane"]


def test_a_class_that_the_first_domain_lacks_keeps_its_ood_images(domainnet_tree, sizes):
    for part in ("train", "test"):
        path = domainnet_tree / f"painting_{part}.txt"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.endswith((" 1\n", " 3\n"))))
    benchmark = domainnet_domains(["painting", "real"], "sketch", dataset_root=domainnet_tree, size=32)
    assert sizes(benchmark) == {"train": [4, 80], "test": [4, 12], "ood_sketch": [8]}
    names = ["aircraft_carrier", "airplane", "alarm_clock", "ambulance"]
    assert all(e["names"] == names for e in benchmark.description["experiences"])
    assert benchmark.description["ood"]["ood_sketch"] == {"classes": [0, 1, 2, 3], "left_out": []}


def test_an_image_in_two_lists_is_named(domainnet_tree, imagenet_r_tree, lists, one_sentence):
    line = (domainnet_tree / "real_train.txt").read_text().splitlines()[0]
    with (domainnet_tree / "real_test.txt").open("a") as file:
        file.write(f"{line}\n")
    both = f"{line.split()[0]} is in the train list and in the test list"
    one_sentence(lambda: domainnet(2, dataset_root=domainnet_tree), both)
    one_sentence(lambda: domainnet_domains(["sketch", "real"], dataset_root=domainnet_tree), both)
    with (domainnet_tree / "real_train.txt").open("a") as file:
        file.write(f"{line}\n")
    one_sentence(lambda: DomainNet(domainnet_tree, "real", "train"), "line 81", "stands in this list before")

    training = yaml.safe_load((lists / "imagenet-r_train.yaml").read_text())
    edit(lists / "imagenet-r_test.yaml", lambda c: c["data"].__setitem__(0, training["data"][0]))
    one_sentence(
        lambda: split_imagenet_r(2, dataset_root=imagenet_r_tree, split_lists=lists),
        "imagenet-r_test.yaml names",
        "imagenet-r_train.yaml has named before",
    )


def test_pickled_domainnet_is_small_and_equal(domainnet_tree):
    dataset = DomainNet(domainnet_tree, "real", "train")
    stored = pickle.dumps(dataset)
    assert len(stored) < 1000 and pickle.loads(stored).paths == dataset.paths
    more = DomainNet(domainnet_tree, "real", "train", classes=[*dataset.classes, "ant"])
    assert pickle.loads(pickle.dumps(more)).classes == [*dataset.classes, "ant"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("real/airplane/x.jpg", ("line 81", "is not 'real/<class>/<file> <class index>'")),
        ("real/airplane/x.jpg one", ("line 81", "<class index>")),
        ("sketch/airplane/x.jpg 1", ("line 81", "'sketch/airplane/x.jpg 1' is not 'real/")),
        ("real/airplane/x.jpg 2", ("line 81", "airplane has the class 2", "class 2 was alarm_clock")),
        ("real/airplane/none.jpg 1", ("1 of the 81 images", "real_train.txt", "real/airplane/none.jpg")),
    ],
)
def test_wrong_lines_of_lists_are_named(domainnet_tree, line, parts, one_sentence):
    with (domainnet_tree / "real_train.txt").open("a") as file:
        file.write(line + "\n")
    one_sentence(lambda: DomainNet(domainnet_tree, "real", "train"), *parts)


def test_list_with_damaged_bytes_is_named(domainnet_tree, one_sentence):
    path = domainnet_tree / "real_train.txt"
    path.write_bytes(path.read_bytes()[:30] + b"\xff\xfe" + path.read_bytes()[30:])
    one_sentence(lambda: DomainNet(domainnet_tree, "real", "train"), "real_train.txt is no text file (byte 30")


def test_lists_that_contradict_each_other_are_named(domainnet_tree, one_sentence):
    path = domainnet_tree / "real_test.txt"
    text = path.read_text()
    path.write_text(
        text.replace(".jpg 1\n", ".jpg 9\n").replace(".jpg 2\n", ".jpg 1\n").replace(".jpg 9\n", ".jpg 2\n")
    )
    one_sentence(
        lambda: domainnet(2, dataset_root=domainnet_tree), "Class 1 is airplane in the train", "but alarm_clock"
    )


def test_missing_list_says_what_where_and_whence(domainnet_tree, one_sentence):
    (domainnet_tree / "quickdraw_test.txt").unlink()
    call = lambda: domainnet(2, dataset_root=domainnet_tree)  # noqa: E731
    one_sentence(call, "quickdraw_test.txt is missing", "https://ai.bu.edu/M3SDA/", f"in {domainnet_tree}")
    assert domainnet(2, dataset_root=domainnet_tree, ood_domains="sketch").streams.keys() == {
        "train",
        "test",
        "ood_sketch",
    }


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"train_domains": "reel"}, "did you mean 'real'"),
        ({"ood_domains": "real"}, "'real' is in train_domains and in ood_domains"),
        ({"label_percent": 0}, "label_percent=0 must lie above 0"),
        ({"label_percent": 10, "shots": 2}, "give one of them"),
        ({"n_experiences": 3}, "use one of 1, 2, 4"),
        ({"size": 4}, "the nearest is 8"),
    ],
)
def test_wrong_arguments_raise_one_clear_sentence(domainnet_tree, options, part, one_sentence):
    one_sentence(lambda: domainnet(dataset_root=domainnet_tree, **{"n_experiences": 2, **options}), part)


# ---- the others ------------------------------------------------------------------------------------------------------


def test_tiny_imagenet_reads_its_annotations(tiny_imagenet_tree, one_sentence, sizes):
    benchmark = split_tiny_imagenet(2, dataset_root=tiny_imagenet_tree, corruptions=["fog"], severities=[1])
    assert sizes(benchmark) == {"train": [10, 10], "test": [4, 4], "ood_fog_1": [4, 4]}
    assert benchmark.streams["ood_fog_1"][0].dataset[0][0].shape == (3, 64, 64)
    for experience in benchmark.test_stream:
        assert set(experience.dataset.targets) == set(experience.classes_in_this_experience)

    annotations = tiny_imagenet_tree / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text() + "val_7.JPEG\tn99999999\t0\t0\t0\t0\n")
    one_sentence(lambda: split_tiny_imagenet(2, dataset_root=tiny_imagenet_tree), "val_annotations.txt, line 9")


def test_core50_has_sessions_as_experiences_and_unseen_sessions_as_ood(core50_tree, one_sentence, sizes):
    benchmark = core50(["s1", "s2"], "s3", dataset_root=core50_tree, size=16)
    assert sizes(benchmark) == {"train": [200, 200], "test": [50, 50], "ood_s3": [250]}
    assert benchmark.description["experiences"][1]["domain"] == "s2"
    by_category = core50(["s1", "s2"], (), dataset_root=core50_tree, object_level=False)
    assert by_category.train_stream[0].classes_in_this_experience == list(range(10))
    one_sentence(
        lambda: core50(["s1"], "s1", dataset_root=core50_tree), "'s1' is in train_sessions and in ood_sessions"
    )
    one_sentence(lambda: core50(["s1"], "s4", dataset_root=core50_tree), "core50_128x128/s4/o1 is missing")


def test_core50_tests_on_the_end_of_each_film(core50_tree):
    from ftp_cl.benchmarks import Core50

    assert all(path.endswith("_004.png") for path in Core50(core50_tree, "s1", "test").paths)


def test_fashion_mnist_reads_plain_and_compressed_files(fashion_tree, one_sentence, sizes):
    benchmark = split_fashion_mnist(dataset_root=fashion_tree, download=False)
    assert sizes(benchmark) == {"train": [8] * 5, "test": [4] * 5}
    assert benchmark.train_stream[0].dataset[0][0].shape == (3, 32, 32)
    labels = fashion_tree / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    one_sentence(lambda: split_fashion_mnist(dataset_root=fashion_tree), "t10k-labels-idx1-ubyte cannot be read")
    labels.unlink()
    one_sentence(
        lambda: split_fashion_mnist(dataset_root=fashion_tree, download=False),
        "t10k-labels-idx1-ubyte.gz is missing: get it from http://fashion-mnist",
    )


def test_a_damaged_file_of_fashion_mnist_is_named(fashion_tree, one_sentence):
    path = fashion_tree / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:12] + b"\xff" * 20 + path.read_bytes()[32:])
    one_sentence(lambda: split_fashion_mnist(dataset_root=fashion_tree, download=False), f"{path.name} cannot be read")


def test_folders_of_ones_own(tmp_path, image_writer, one_sentence, sizes):
    for part, count in (("train", 3), ("test", 2), ("ood_night", 1)):
        for name in ("cat", "dog") if part != "ood_night" else ("dog", "owl"):
            for k in range(count):
                image_writer(tmp_path / part / name / f"{k}.PNG", seed=k)
    benchmark = image_folder(tmp_path, 2, size=16, fixed_class_order=[0, 1])
    assert sizes(benchmark) == {"train": [3, 3], "test": [2, 2], "ood_night": [1]}
    assert benchmark.streams["ood_night"][0].current_experience == 1
    assert benchmark.description["ood"]["ood_night"]["left_out"] == ["owl"]

    corrupted = {"size": 32, "corruptions": "contrast", "severities": 1, "corrupted": "validation"}
    chosen = image_folder(tmp_path, validation_fraction=0.3, **corrupted)
    assert sizes(chosen) == {"train": [4], "test": [4], "validation": [2], "ood_night": [1], "ood_contrast_1": [2]}
    assert chosen.description["ood"]["ood_contrast_1"]["corrupted"] == "validation"
    one_sentence(lambda: image_folder(tmp_path, **corrupted), "corrupted='validation' needs validation images")
    one_sentence(lambda: image_folder(tmp_path, corrupted="train"), "Unknown corrupted stream 'train'")

    (tmp_path / "test" / "fox").mkdir()
    one_sentence(lambda: image_folder(tmp_path), "test/fox holds no images")
    image_writer(tmp_path / "test" / "fox" / "1.jpg")
    one_sentence(lambda: image_folder(tmp_path), "must have the same classes, but only one of them has fox")
    one_sentence(lambda: image_folder(tmp_path / "none"), "none/train is missing")
    (tmp_path / "test" / "fox" / "1.jpg").unlink()
    (tmp_path / "test" / "fox").rmdir()
    image_writer(tmp_path / "ood_rename" / "dog" / "1.png")
    one_sentence(lambda: image_folder(tmp_path), "ood_rename has a name", "rename it")
