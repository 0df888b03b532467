"""few_labels(unlabelled=...): no image that the benchmark evaluates on is trained on without its label."""

import shutil

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import Dataset, Subset

from ftp_cl.benchmarks import (
    domainnet,
    few_labels,
    image_folder,
    split_digits,
    split_emoji,
    split_fashion_mnist,
    split_imagenet_r,
    with_ood,
)


def refused(labelled, unlabelled, stream):
    with pytest.raises(ValueError, match=rf"^Images of the stream '{stream}' are among the unlabelled ones: [^\n]+$"):
        few_labels(labelled, per_class=1, unlabelled=unlabelled)


@pytest.fixture
def folders(tmp_path, image_writer):
    for part in ("train", "test", "ood_night"):
        for c, name in enumerate(("cat", "dog")):
            for k in range(6):
                image_writer(
                    tmp_path / "a" / part / name / f"{k}.png", seed=len(part) * 100 + c * 10 + k, size=(16, 16)
                )
    return tmp_path / "a"


def test_images_of_folders_are_told_by_their_content(folders):
    def build(root=folders, fraction=0.5, **options):
        return image_folder(root, size=16, validation_fraction=fraction, **options)

    few_labels(build(), per_class=1, unlabelled=build(shots=2))
    refused(build(), build(fraction=None), "validation")
    moved = folders.parent / "b"
    shutil.copytree(folders, moved)
    for path in list(moved.glob("train/*/*")):
        path.rename(path.with_name(f"renamed_{path.name}"))
    refused(build(), build(moved, None), "validation")
    shutil.copy(folders / "test" / "cat" / "0.png", moved / "train" / "cat" / "another.png")
    refused(build(fraction=None), build(moved, None), "test")
    shutil.copy(folders / "ood_night" / "cat" / "0.png", moved / "train" / "cat" / "another.png")
    refused(build(fraction=None), build(moved, None), "ood_night")


def test_published_data_are_told_by_their_place(domainnet_tree, imagenet_r_tree, fashion_tree):
    def real(**options):
        return domainnet(2, dataset_root=domainnet_tree, **{"size": 16, "ood_domains": "sketch", **options})

    # The tree has the same pixels in training and test part: they are other images by their place.
    few_labels(real(), per_class=1, unlabelled=real(shots=5))
    few_labels(real(), per_class=1, unlabelled=real(train_domains="sketch", ood_domains=()))
    refused(real(validation_fraction=0.2), real(size=32), "validation")

    def renditions(**options):
        return split_imagenet_r(2, dataset_root=imagenet_r_tree, size=16, download=False, **options)

    refused(renditions(), renditions(split_seed=1), "test")

    def clothes(**options):
        return split_fashion_mnist(dataset_root=fashion_tree, download=False, **options)

    few_labels(clothes(), per_class=1, unlabelled=clothes(size=64))
    refused(clothes(validation_fraction=0.5), clothes(size=64), "validation")


def test_size_inversion_and_style_do_not_hide_an_image():
    digits = split_digits(2, fixed_class_order=range(10))
    few_labels(digits, per_class=1, unlabelled=split_digits(2, fixed_class_order=range(10), size=16))
    refused(digits, split_digits(2, fixed_class_order=range(10), size=16, seed=1), "validation")

    def emoji(style, **options):
        return split_emoji(1, style, (), size=8, **options)

    few_labels(emoji("noto"), per_class=1, unlabelled=emoji("twemoji"))
    refused(emoji("noto"), emoji("twemoji", validation_fraction=None), "validation")


class Drawn(Dataset):
    """Images that are drawn anew at each look."""

    targets = (0, 1) * 4

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.rand(3, 4, 4), self.targets[index]


def part(dataset, indices):
    subset = Subset(dataset, indices)
    subset.targets = [dataset.targets[i] for i in indices]
    return subset


def test_images_of_any_other_data_set_are_told_by_pixels_or_by_their_place_in_it(squares):
    def build(train, test):
        return nc_benchmark(train, test, 1, False, seed=0)

    a, b, c = (squares("ab", seed=seed) for seed in (1, 2, 3))
    few_labels(build(a, b), per_class=1, unlabelled=build(c, b))
    refused(build(a, b), build(b, c), "test")
    refused(build(a, b), build(squares("ab", seed=2), c), "test")
    shown = with_ood(build(a, b), class_names="ab", other=c)
    refused(shown, build(part(c, [0, 5]), b), "ood_other")
    # What the benchmark trains on anyway may be there again.
    few_labels(build(a, a), per_class=1, unlabelled=build(a, b))

    drawn = Drawn()
    few_labels(
        build(part(drawn, [0, 1, 2]), part(drawn, [3, 4])), per_class=1, unlabelled=build(part(drawn, [5, 6]), a)
    )
    refused(build(part(drawn, [0, 1, 2]), part(drawn, [3, 4])), build(part(drawn, [4, 5, 6]), a), "test")
