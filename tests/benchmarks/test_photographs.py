"""GroceryStoreDataset and domain sets in folders, on small trees in the published formats."""

import pytest

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
