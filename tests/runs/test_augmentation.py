"""train.augmentation: random views in training, for all methods the same; nothing else changes."""

import json

import pytest
import torch

from ftp_cl.benchmarks import few_labels, split_digits, split_emoji
from ftp_cl.models import small_cnn
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.data import augment_training

METHODS = ("naive", "lp_ft", "ftp", "fixmatch", "fixmatch_ftp")

WATCH = """
from avalanche.core import SupervisedPlugin

class Watch(SupervisedPlugin):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def before_forward(self, strategy, **kwargs):
        with open(self.path, "a") as file:
            print(strategy.mb_x.double().sum().item(), strategy.mb_y.tolist(), file=file)
"""


def emoji(**options):
    return few_labels(split_emoji(n_experiences=2, size=16, ood_domains=("blob",), **options), per_class=2)


def items(dataset):
    return [(item[0], item[1:]) for item in dataset]


def test_only_the_training_group_of_the_train_stream_gives_random_views():
    plain, augmented = emoji(), emoji()
    augment_training(augmented, "weak")
    torch.manual_seed(0)
    for name, stream in plain.streams.items():
        for one, other in zip(stream, augmented.streams[name], strict=True):
            assert list(one.dataset.targets) == list(other.dataset.targets)
            for group in ("train", "eval"):
                before, after = (items(getattr(e.dataset, group)()) for e in (one, other))
                assert [rest for _, rest in before] == [rest for _, rest in after]
                same = [torch.equal(a, b) for (a, _), (b, _) in zip(before, after, strict=True)]
                assert sum(same) < 5 if (name, group) == ("train", "train") else all(same)


def test_views_differ_each_time_and_without_mirroring_are_shifts():
    benchmark = emoji()
    image = benchmark.train_stream[0].dataset.eval()[0][0]
    augment_training(benchmark, "shift")
    views = [benchmark.train_stream[0].dataset.train()[0][0] for _ in range(100)]
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect")
    shifts = {padded[:, y : y + 16, x : x + 16].numpy().tobytes() for y in range(5) for x in range(5)}
    assert {view.numpy().tobytes() for view in views} <= shifts and len({v.sum().item() for v in views}) > 5


def test_new_rows_of_the_head_are_imprinted_from_images_as_they_are():
    rows = []
    for name in (None, "weak"):
        benchmark = emoji()
        augment_training(benchmark, name)
        torch.manual_seed(0)
        model = small_cnn(3)
        model.train().adaptation(benchmark.train_stream[0])
        rows.append(model.head.weight.detach())
    assert torch.equal(*rows)


@pytest.mark.slow
def test_all_methods_train_on_the_same_views_of_labelled_images(quick_run, tmp_path):
    (tmp_path / "watching.py").write_text(WATCH)
    seen = {}
    for method, augmentation in [(m, "shift") for m in METHODS] + [("naive", "null")]:
        path = f"{method}_{augmentation}"
        quick_run(
            f"method={method}", f"train.augmentation={augmentation}", "labels.per_class=8", "train.epochs=2",
            f"plugins=[{{name: watching:Watch, path: {path}}}]", "benchmark.n_experiences=2", "eval.ood_every=never",
            out=f"{path}_run",
        )  # fmt: skip
        seen[path] = (tmp_path / path).read_text().splitlines()
    plain = seen.pop("naive_null")
    assert all(batches == seen["naive_shift"] for batches in seen.values())
    assert len(plain) == len(seen["naive_shift"]) and plain != seen["naive_shift"]


def test_it_is_recorded_and_the_default_is_none(quick_run, tmp_path):
    assert quick_run("method=naive")["config"]["train"]["augmentation"] is None
    # A directory from before there was this key holds the same run still.
    config = tmp_path / "run" / "config.yaml"
    text = config.read_text()
    assert text.count("  augmentation: null\n") == 1
    config.write_text(text.replace("  augmentation: null\n", ""))
    before = json.loads((tmp_path / "run" / "result.json").read_text())
    assert quick_run("method=naive") == before


@pytest.mark.parametrize(
    ("transform", "told"), [(None, "gives Image"), (torch.nn.Flatten(0), r"gives tensors of shape \[64\]")]
)
def test_what_is_no_image_is_refused_in_one_sentence(transform, told):
    if transform is None:
        benchmark = split_emoji(size=8, train_transform=None)
    else:
        benchmark = split_digits(train_transform=transform)
    with pytest.raises(ConfigError, match=rf"train.augmentation=weak needs images as tensors .* {told}"):
        augment_training(benchmark, "weak")


def test_crops_and_rand_augment_give_images_of_the_same_size_and_range():
    benchmark = emoji()
    image = benchmark.train_stream[0].dataset.eval()[0][0]
    augment_training(benchmark, "crop", "rand-m9-mstd0.5-inc1")
    views = [benchmark.train_stream[0].dataset.train()[0][0] for _ in range(20)]
    assert all(view.shape == image.shape and view.min() >= 0 and view.max() <= 1 for view in views)
    assert len({view.sum().item() for view in views}) > 15
    with pytest.raises(ConfigError, match="rand_augment=strong is none of timm"):
        augment_training(emoji(), None, "strong")
