"""GroceryStoreDataset and domain sets in folders, on small trees in the published formats."""

import runpy
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ftp_cl.benchmarks import GroceryStore, domain_folder, few_labels, grocery_store


def test_groceries_come_class_by_class_with_product_pictures_as_ood(grocery_tree, sizes):
    benchmark = grocery_store(2, dataset_root=grocery_tree, size=16, fixed_class_order=[3, 0, 1, 2])
    assert sizes(benchmark) == {"train": [6, 6], "test": [4, 4], "validation": [1, 2], "ood_iconic": [2, 2]}
    assert benchmark.description["experiences"][0] == {"classes": [3, 0], "names": ["Leek", "Pink-Lady"]}
    image, target, _ = benchmark.streams["ood_iconic"][1].dataset[1]
    assert image.shape == (3, 16, 16) and target == 2
    stored = GroceryStore(grocery_tree, "iconic")
    assert stored.paths[2] == "iconic-images-and-descriptions/Packages/Milk/Arla-Milk/Arla-Milk_Iconic.jpg"
    drawn = grocery_store([3, 1], dataset_root=grocery_tree, size=16, validation_fraction=0.3)
    assert sizes(drawn) == {"train": [6, 2], "test": [6, 2], "validation": [3, 1], "ood_iconic": [3, 1]}
    assert few_labels(benchmark, per_class=1, seed=0).description["stream_sizes"]["unlabelled"] == [4, 4]


def test_an_experience_whose_classes_the_published_validation_list_lacks_is_left_out_of_that_stream(
    grocery_tree, one_sentence
):
    benchmark = grocery_store(4, dataset_root=grocery_tree, size=16, fixed_class_order=[3, 0, 1, 2])  # of 3 it has none
    assert [e.current_experience for e in benchmark.streams["validation"]] == [1, 2, 3]
    (grocery_tree / "dataset" / "val.txt").write_text("")
    one_sentence(lambda: grocery_store(4, dataset_root=grocery_tree), "'validation' has no items of the classes")
    (grocery_tree / "dataset" / "train.txt").write_text("")
    one_sentence(
        lambda: grocery_store(4, dataset_root=grocery_tree), "grocery_store has nothing to train on", "4 class"
    )


def test_a_byte_order_mark_before_a_list_of_groceries_is_no_part_of_it(grocery_tree):
    plain = GroceryStore(grocery_tree, "train")
    for name in ("classes.csv", "train.txt"):
        file = grocery_tree / "dataset" / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    marked = GroceryStore(grocery_tree, "train")
    assert (marked.paths, marked.classes) == (plain.paths, plain.classes)


@pytest.mark.parametrize(
    ("path", "old", "new", "parts"),
    [
        (
            "test.txt",
            "test/Fruit/Kiwi/Kiwi_001.jpg, 1, 1",
            "test/Fruit/Kiwi/Kiwi_001.jpg, 2, 1",
            ["line 3"],
        ),
        (
            "test.txt",
            "test/Fruit/Kiwi/Kiwi_001.jpg",
            "train/Fruit/Kiwi/Kiwi_001.jpg",
            ["is not 'test/<...>/<class>/"],
        ),
        ("val.txt", "Kiwi_001", "Kiwi_009", ["1 of the 3 images", "val.txt", "the first is", "Kiwi_009.jpg"]),
        ("train.txt", "Kiwi_001", "Kiwi_002", ["line 5", "no line before names"]),
        ("classes.csv", "Kiwi,1", "Kiwi,0", ["classes.csv, line 3", "0 to 3"]),
    ],
)
def test_lists_of_groceries_that_are_wrong_are_named(grocery_tree, path, old, new, parts, one_sentence):
    file = grocery_tree / "dataset" / path
    file.write_text(file.read_text().replace(old, new, 1))
    one_sentence(lambda: grocery_store(2, dataset_root=grocery_tree), *parts)


def test_another_layout_of_groceries_says_what_was_expected_and_what_is_there(grocery_tree, one_sentence):
    one_sentence(
        lambda: grocery_store(2, dataset_root=grocery_tree / "dataset"),
        "dataset/dataset/classes.csv is missing",
        "clone of https://github.com/marcusklasson/GroceryStoreDataset",
        "there is classes.csv, iconic-images-and-descriptions, test, ",
    )
    (grocery_tree / "dataset" / "val.txt").unlink()
    one_sentence(lambda: grocery_store(2, dataset_root=grocery_tree), "val.txt is missing", "there is classes.csv")
    one_sentence(lambda: grocery_store(2, dataset_root=grocery_tree / "none"), "none there is nothing")


def test_domains_come_one_by_one_and_the_others_are_ood(domains_tree, sizes):
    benchmark = domain_folder(domains_tree, ["photo", "sketch"], size=16)
    # Of 5, 6 and 7 images one is for testing; the OOD stream has all images of the two classes and of the third.
    assert sizes(benchmark) == {"train": [15, 15], "test": [3, 3], "ood_art": [18]}
    assert [e["domain"] for e in benchmark.description["experiences"]] == ["photo", "sketch"]
    assert benchmark.description["experiences"][0]["names"] == ["dog", "elephant", "horse", "zebra"]
    assert set(benchmark.train_stream[1].dataset.targets) == {0, 2, 3}
    fewer = domain_folder(domains_tree, "photo", ["art"], size=16, label_percent=20)
    assert sizes(fewer) == {"train": [3], "test": [3], "ood_art": [18]}


def test_test_images_of_domains_are_none_to_train_on_and_the_same_for_every_seed(domains_tree):
    def images(seed, stream):
        dataset = domain_folder(domains_tree, "photo", (), 1, seed, size=16).streams[stream][0].dataset
        return {dataset[i][0].numpy().tobytes() for i in range(len(dataset))}

    assert len(images(0, "train") | images(0, "test")) == 18
    assert images(0, "test") == images(5, "test")


def test_domains_class_by_class(domains_tree, one_sentence, sizes):
    options = {"size": 16, "fixed_class_order": [2, 0, 1, 3]}
    benchmark = domain_folder(domains_tree, ["photo", "sketch"], n_experiences=[3, 1], **options)
    # horse: 6 + 5 to train on, dog 4 + 4, elephant 5; zebra 6. art has no zebra.
    assert sizes(benchmark) == {"train": [24, 6], "test": [5, 1], "ood_art": [18]}
    one_sentence(lambda: domain_folder(domains_tree, "photo", **options), "fixed_class_order and first_exp")


def test_domains_that_cannot_be_used_are_named(domains_tree, image_writer, one_sentence):
    one_sentence(lambda: domain_folder(domains_tree, "foto"), "Unknown domain 'foto': did you mean 'photo'?")
    one_sentence(lambda: domain_folder(domains_tree, "photo", "real"), "Unknown domain 'real': choose from art, photo")
    one_sentence(lambda: domain_folder(domains_tree, "art", "art"), "'art' is in train_domains and in ood_domains")
    one_sentence(lambda: domain_folder(domains_tree / "none", "art"), "none is missing")
    image_writer(domains_tree / "photo" / "ant" / "1.jpg")
    one_sentence(lambda: domain_folder(domains_tree, "photo"), "photo/ant holds one image")
    image_writer(domains_tree / "amazon" / "images" / "dog" / "1.jpg")
    one_sentence(lambda: domain_folder(domains_tree, "amazon"), "amazon holds a single folder, images", "move them up")


def test_classes_of_training_domains_that_differ_in_capitals_only_are_refused(domains_tree, one_sentence):
    (domains_tree / "photo" / "dog").rename(domains_tree / "photo" / "Dog")
    one_sentence(lambda: domain_folder(domains_tree, ["art", "photo"]), "art, photo", "'Dog' and 'dog'", "one name")


def test_a_domain_is_found_by_its_name_however_its_letters_are_composed(domains_tree):
    apart, composed = (unicodedata.normalize(form, "phötö") for form in ("NFD", "NFC"))
    (domains_tree / "photo").rename(domains_tree / apart)
    for name in (apart, composed):
        benchmark = domain_folder(domains_tree, ["art"], name, size=16)
        assert list(benchmark.streams) == ["train", "test", f"ood_{composed}"]


def test_pixels_of_16_bits_are_scaled_to_8_and_floats_are_refused(domains_tree, one_sentence):
    for path in list((domains_tree / "photo").rglob("*.jpg")):
        path.unlink()
        Image.fromarray(np.full((16, 16), 257 * 100, np.uint16)).save(path.with_suffix(".png"))
    image = domain_folder(domains_tree, "photo", (), size=16).train_stream[0].dataset[0][0]
    np.testing.assert_allclose(image, 100 / 255, atol=1e-6)
    Image.fromarray(np.ones((16, 16), np.float32)).save(domains_tree / "art" / "dog" / "pic_0.tif")
    one_sentence(
        lambda: [*domain_folder(domains_tree, "photo", "art", size=16).streams["ood_art"][0].dataset], "floating"
    )


def test_the_subset_has_every_second_class_its_product_pictures_and_so_many_test_photographs(
    grocery_tree, monkeypatch, capsys
):
    def run(target, *options):
        script = Path(__file__).parents[2] / "tools" / "grocery_subset.py"
        monkeypatch.setattr(sys, "argv", [str(script), str(grocery_tree), str(target), *options])
        runpy.run_path(str(script), run_name="__main__")
        return {path.relative_to(target).as_posix() for path in target.rglob("*.jpg")}

    names = ("Arla-Milk", "Pink-Lady")
    assert run(grocery_tree / "part", "--every", "2", "--tested", "1") == {
        *(f"train/{name}/{name}_00{number}.jpg" for name in names for number in (1, 2, 3)),
        *(f"test/{name}/{name}_001.jpg" for name in names),
        *(f"ood_iconic/{name}/{name}_Iconic.jpg" for name in names),
    }
    with pytest.raises(SystemExit):
        run(grocery_tree / "part")
    assert "exists: remove it first" in capsys.readouterr().err
    assert len([path for path in run(grocery_tree / "all", "--tested", "9") if path.startswith("test/")]) == 2
