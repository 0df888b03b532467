"""few_labels: budgets, what is recorded, and that no hidden label can be reached."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark, nc_benchmark, ni_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks import Digits, domainnet, few_labels, hidden_labels, split_digits, split_emoji, with_ood


@pytest.fixture(scope="module")
def digits():
    return split_digits(n_experiences=2)


def tensors(per_class=10, classes=4):
    targets = torch.arange(classes).repeat(per_class)
    dataset = TensorDataset(torch.arange(len(targets)).float()[:, None] + torch.zeros(1, 3), targets)
    dataset.targets = targets.tolist()
    return dataset


def labelled(benchmark):
    return benchmark.description["labels"]["labelled"]


# ---- budgets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [{"per_class": 3}, {"fraction": 0.1}])
def test_each_class_of_each_experience_keeps_its_labels_and_the_rest_is_unlabelled(digits, budget):
    few = few_labels(digits, **budget)
    for whole, kept, rest in zip(digits.train_stream, few.train_stream, few.streams["unlabelled"], strict=True):
        counts, available = np.bincount(kept.dataset.targets), np.bincount(whole.dataset.targets)
        for c in whole.classes_in_this_experience:
            assert counts[c] == budget.get("per_class", max(1, round(0.1 * available[c])))
        assert len(kept.dataset) + len(rest.dataset) == len(whole.dataset)
        assert set(rest.dataset.targets) == {-1}


@pytest.mark.parametrize(
    "budgets", [[{"per_class": n} for n in (2, 4, 8)], [{"fraction": f} for f in (0.01, 0.1, 0.5)]]
)
def test_smaller_budgets_are_part_of_larger_ones_for_one_seed(digits, budgets):
    drawn = [labelled(few_labels(digits, **budget)) for budget in budgets]
    for smaller, larger in itertools.pairwise(drawn):
        for few, many in zip(smaller, larger, strict=True):
            assert set(few) < set(many)
    assert labelled(few_labels(digits, **budgets[0], seed=1)) != drawn[0]


def test_a_class_with_fewer_images_keeps_all_its_labels_if_that_is_allowed():
    emoji = split_emoji(n_experiences=1, size=8, ood_domains=["blob"])
    with pytest.raises(ValueError, match=r"6 training images of class .* or allow_fewer=True"):
        few_labels(emoji, per_class=8)
    few = few_labels(emoji, per_class=8, allow_fewer=True)
    assert sorted(np.bincount(few.train_stream[0].dataset.targets)) == [6] + [8] * 19
    assert sum(len(labels) for labels in hidden_labels(emoji, per_class=8, allow_fewer=True)) == 298 - 158
    fewer = few_labels(emoji, per_class=4)
    assert set(labelled(fewer)[0]) < set(labelled(few)[0])


def test_the_recorded_indices_are_those_of_the_labelled_images(digits):
    few = few_labels(digits, per_class=2)
    json.dumps(few.description)
    for whole, kept, indices in zip(digits.train_stream, few.train_stream, labelled(few), strict=True):
        for position, index in enumerate(indices):
            image, target, *_ = whole.dataset[index]
            assert torch.equal(kept.dataset[position][0], image) and kept.dataset[position][1] == target


def test_unlabelled_images_are_the_others_and_hidden_labels_are_theirs(digits):
    few, hidden = few_labels(digits, per_class=2), hidden_labels(digits, per_class=2)
    whole = digits.train_stream[0].dataset
    rest = few.streams["unlabelled"][0].dataset
    by_image = {item[0].numpy().tobytes(): int(item[1]) for item in whole}
    assert [by_image[item[0].numpy().tobytes()] for item in rest] == hidden[0]
    kept = {item[0].numpy().tobytes() for item in few.train_stream[0].dataset}
    assert kept.isdisjoint({item[0].numpy().tobytes() for item in rest})


def test_unlabelled_images_can_come_from_another_style():
    noto, twemoji = (split_emoji(size=16, train_domains=d, ood_domains=()) for d in ("noto", "twemoji"))
    few = few_labels(noto, per_class=2, unlabelled=twemoji)
    hidden = hidden_labels(noto, per_class=2, unlabelled=twemoji)
    for other, rest, truth in zip(twemoji.train_stream, few.streams["unlabelled"], hidden, strict=True):
        assert sorted(truth) == sorted(other.dataset.targets) and len(rest.dataset) == len(truth)
    assert few.description["labels"]["unlabelled"]["train_domains"] == ["twemoji"]
    assert len(few.streams["test"][0].dataset) == len(noto.streams["test"][0].dataset)


# ---- any benchmark -------------------------------------------------------------------------------------------------

AVALANCHE = {
    "nc": lambda data, **t: nc_benchmark(data, tensors(), n_experiences=2, task_labels=True, **t),
    "ni": lambda data, **t: ni_benchmark(data, tensors(), n_experiences=2, **t),
    "class_incremental": lambda data: class_incremental_benchmark(
        {"train": as_classification_dataset(data), "test": as_classification_dataset(tensors())}, num_experiences=2
    ),
}


@pytest.mark.parametrize("kind", sorted(AVALANCHE))
def test_avalanches_own_benchmarks_work_too(make_naive, kind):
    benchmark = AVALANCHE[kind](tensors())
    few = few_labels(benchmark, per_class=2)
    for whole, kept in zip(benchmark.train_stream, few.train_stream, strict=True):
        assert sorted(kept.classes_in_this_experience) == sorted(whole.classes_in_this_experience)
        assert getattr(kept, "task_labels", None) == getattr(whole, "task_labels", None)
    strategy = make_naive(torch.nn.Linear(3, 4))
    for experience in few.train_stream:
        strategy.train(experience)
    strategy.eval(few.streams["test"])


def test_images_are_copied_pixel_by_pixel(squares):
    data = squares(["a", "b"])
    benchmark = nc_benchmark(data, squares(["a", "b"]), n_experiences=1, task_labels=False, train_transform=to_tensor)
    few = few_labels(benchmark, per_class=1)
    image = few.train_stream[0].dataset.train()[0][0]
    assert torch.equal(image, to_tensor(data[labelled(few)[0][0]][0]))


@pytest.mark.parametrize(("size", "stored"), [(64, True), (8, False)])
def test_image_files_are_kept_as_they_are_stored_where_that_is_less(domainnet_tree, size, stored):
    options = {"n_experiences": 2, "size": size, "ood_domains": (), "dataset_root": domainnet_tree}
    whole = domainnet(**options, validation_fraction=0.2)
    few = few_labels(whole, per_class=2)
    files = {path.read_bytes() for path in domainnet_tree.glob("real/*/*.jpg")}
    for stream in ("train", "validation", "unlabelled"):
        source = few.streams[stream][0].dataset._flat_data
        while hasattr(source, "_datasets"):
            (source,) = source._datasets
        assert all((getattr(image, "content", None) in files) == stored for image in source._inputs)
    for position, index in enumerate(labelled(few)[0]):
        assert torch.equal(few.train_stream[0].dataset[position][0], whole.train_stream[0].dataset[index][0])
    shown = {item[0].numpy().tobytes() for item in few.streams["unlabelled"][0].dataset}
    assert shown <= {item[0].numpy().tobytes() for item in whole.train_stream[0].dataset}
    kept = pickle.dumps(few.streams["unlabelled"][0].dataset)
    assert not any(name in kept for name in (b"airplane", b"real_"))


# ---- hidden labels -------------------------------------------------------------------------------------------------


class Watched(TensorDataset):
    """A source whose reachable instances give the labels away."""


def gives_away(value, hidden):
    """Whether a sequence holds, at the places of the unlabelled images, anything like their labels."""
    if isinstance(value, torch.Tensor):
        value = value.tolist() if value.dim() == 1 else []
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim == 1 else []
    return isinstance(value, (list, tuple)) and [x for x in value if isinstance(x, int)] == hidden


def sources():
    base = tensors()
    watched = Watched(*base.tensors)
    watched.targets = base.targets
    yield "itself", watched
    subset = Subset(watched, range(40))
    subset.targets = base.targets
    yield "wrapped", subset


@pytest.mark.parametrize(("how", "source"), list(sources()), ids=["itself", "wrapped"])
@pytest.mark.parametrize("kind", sorted(AVALANCHE))
def test_no_hidden_label_can_be_reached(reachable, kind, how, source):
    benchmark = AVALANCHE[kind](source)
    few, hidden = few_labels(benchmark, per_class=2), hidden_labels(benchmark, per_class=2)
    sequences = [
        *hidden,
        [c for labels in hidden for c in labels],
        *[list(e.dataset.targets) for e in benchmark.train_stream],
    ]
    for start in (few, few.streams["unlabelled"][0], few.train_stream[0], pickle.loads(pickle.dumps(few))):
        found = reachable(start)
        assert len(found) > 50, "the walk itself must work"
        assert not any(isinstance(node, Watched) for node in found)
        assert not any(gives_away(node, labels) for node in found for labels in sequences)
    assert b"Watched" not in pickle.dumps(few)
    # The walk does find the labels where they are.
    assert any(isinstance(node, Watched) for node in reachable(benchmark.train_stream[0]))


def test_streams_that_share_the_training_data_do_not_lead_to_its_labels(reachable, digits):
    few, hidden = few_labels(with_ood(digits, more=Digits("test")), per_class=2), hidden_labels(digits, per_class=2)
    source = digits.train_stream[0].dataset._flat_data._datasets[0]
    assert any(node is source for node in reachable(digits.streams["validation"][0]))
    for stream in few.streams.values():
        assert not any(node is source for node in reachable(stream))
    assert list(few.streams["validation"][0].dataset.targets) == list(digits.streams["validation"][0].dataset.targets)
    for experience, labels in zip(few.streams["unlabelled"], hidden, strict=True):
        assert experience.classes_in_this_experience == [-1] and experience.classes_seen_so_far == [-1]
        assert {item[1] for item in experience.dataset} == {-1}
        # Sorted images would tell their classes.
        assert sum(a != b for a, b in itertools.pairwise(labels)) > len(labels) / 2


def test_streams_that_share_the_data_of_the_unlabelled_images_do_not_lead_to_their_labels(reachable):
    everything = Watched(*tensors().tensors)
    others, tested = (Subset(everything, range(start, start + 20)) for start in (0, 20))
    for part in (others, tested):
        part.targets = [int(everything.tensors[1][index]) for index in part.indices]
    tested.classes = list("abcd")
    options = {"n_experiences": 1, "task_labels": False}
    benchmark = with_ood(nc_benchmark(tensors(), tensors(), **options), class_names=tested.classes, tested=tested)
    unlabelled = nc_benchmark(others, tensors(), **options)
    few = few_labels(benchmark, per_class=2, unlabelled=unlabelled)
    assert not any(isinstance(node, Watched) for node in reachable(few))
    assert sorted(item[1] for item in few.streams["ood_tested"][0].dataset) == sorted(tested.targets)


def test_budgets_may_be_numbers_of_numpy(digits):
    few = few_labels(digits, per_class=np.int64(2), seed=np.int64(3))
    assert labelled(few) == labelled(few_labels(digits, per_class=2, seed=3))
    json.dumps([few.description, few_labels(digits, fraction=np.float32(0.1)).description])


class Files(torch.utils.data.Dataset):
    """Images in files whose names tell the class."""

    targets = (0, 0, 0, 1, 1, 1)

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return Image.open(self.folder / f"class{self.targets[index]}_{index}.png"), self.targets[index]


def test_the_path_of_an_image_file_is_not_kept(tmp_path):
    for index, target in enumerate(Files.targets):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / f"class{target}_{index}.png")
    data = Files(tmp_path)
    few = few_labels(nc_benchmark(data, Files(tmp_path), n_experiences=1, task_labels=False), per_class=1)
    assert b"class1_" in pickle.dumps(data[3][0].filename)
    assert b"class1_" not in pickle.dumps(few)


def test_the_original_benchmark_is_unchanged_and_not_linked(digits):
    few = few_labels(digits, per_class=2)
    assert few.train_stream.benchmark is few and digits.train_stream.benchmark is not few
    assert all(stream.benchmark is few for stream in few.streams.values())
    assert "unlabelled" not in digits.streams and "labels" not in digits.description


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "per_class or fraction"),
        ({"per_class": 2, "fraction": 0.1}, "one of them"),
        ({"per_class": 0}, "per_class=0 must be a whole number of at least 1"),
        ({"per_class": 2.5}, r"per_class=2\.5"),
        ({"per_class": 1000}, r"more than the \d+ training images of class \d in experience 0: use \d+ or fewer"),
        ({"fraction": 0}, "fraction=0"),
        ({"fraction": 1.0}, "fraction=1.0 must lie between"),
        ({"fraction": 0.999}, "No unlabelled image is left in experience 0"),
        ({"per_class": 1, "seed": -1}, "seed=-1"),
    ],
)
def test_bad_budgets_are_refused_in_one_sentence(digits, options, told):
    with pytest.raises(ValueError, match=told) as error:
        few_labels(digits, **options)
    assert "\n" not in str(error.value)


def test_unlabelled_images_of_another_stream_are_refused(digits):
    with pytest.raises(ValueError, match="5 training experiences and the labelled one 2"):
        few_labels(digits, per_class=1, unlabelled=split_digits(n_experiences=5))
    with pytest.raises(ValueError, match="same class order"):
        few_labels(digits, per_class=1, unlabelled=split_digits(n_experiences=2, seed=1))
    for fraction in (0.05, None):
        with pytest.raises(ValueError, match=rf"has validation_fraction={fraction} and the labelled one 0\.2"):
            few_labels(digits, per_class=1, unlabelled=split_digits(2, validation_fraction=fraction))


def test_a_benchmark_that_has_unlabelled_images_is_refused(digits):
    few = few_labels(digits, per_class=4)
    for function in (few_labels, hidden_labels):
        with pytest.raises(ValueError, match="has a stream 'unlabelled' already"):
            function(few, per_class=2)
