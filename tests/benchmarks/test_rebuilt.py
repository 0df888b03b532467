"""What few_labels, with_ood and with_corruptions rebuild keeps Avalanche's transforms, labels and experiences."""

import itertools

import numpy as np
import pytest
import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    benchmark_with_validation_stream,
    class_incremental_benchmark,
    nc_benchmark,
    ni_benchmark,
    with_classes_timeline,
)
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TransformGroups,
    as_classification_dataset,
)
from avalanche.benchmarks.utils.transform_groups import DefaultTransformGroups
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks import few_labels, with_corruptions, with_ood


def rows(start=0, per_class=6, classes=6):
    """Item k is a row of three different numbers that tell it from all others."""
    targets = torch.arange(classes).repeat(per_class)
    values = start + 10 * torch.arange(len(targets)).float()[:, None] + torch.tensor([0.0, 1.0, 2.0])
    dataset = TensorDataset(values, targets)
    dataset.targets = targets.tolist()
    dataset.classes = [f"class {c}" for c in range(classes)]
    return dataset


def renumbered(**options):
    options = {"shuffle": True, "train_transform": lambda x: x + 0.25, "eval_transform": lambda x: x + 0.5, **options}
    return nc_benchmark(rows(), rows(1000), n_experiences=3, task_labels=False, seed=0, **options)


def permute(order):
    return lambda x: x[list(order)]


PERMUTATIONS = list(itertools.permutations(range(3)))[1:4]


def aware(data, groups, task_label=0, frozen=None):
    attributes = [DataAttribute(data.targets, "targets"), TaskLabels([task_label] * len(data))]
    return TaskAwareSupervisedClassificationDataset(
        [data], data_attributes=attributes, transform_groups=groups, frozen_transform_groups=frozen
    )


def permuted():
    """Built as Avalanche builds PermutedMNIST: all classes in each experience, each with a frozen permutation."""
    parts = [
        [aware(data, None, frozen=DefaultTransformGroups((permute(p), None))) for p in PERMUTATIONS]
        for data in (rows(), rows(1000))
    ]
    options = {"shuffle": False, "class_ids_from_zero_in_each_exp": True, "one_dataset_per_exp": True}
    return nc_benchmark(*parts, n_experiences=3, task_labels=True, eval_transform=torch.neg, **options)


def several():
    """One experience of two data sets that take turns, with transforms, renamed labels, task labels of their own."""
    turned = {"train": (torch.neg, None), "eval": (torch.neg, lambda y: 5 - y)}
    first = aware(rows(), TransformGroups(turned), task_label=3).freeze_transforms()
    second = aware(rows(5000), DefaultTransformGroups((permute([2, 1, 0]), None)), task_label=4)
    marks = DataAttribute([f"mark {k}" for k in range(72)], "marks", use_in_getitem=True)
    both = type(first)(
        [first.concat(second)], transform_groups=TransformGroups({"train": lambda x: x + 0.25, "eval": None})
    ).update_data_attribute("marks", marks)
    both = both.subset([k // 2 + 36 * (k % 2) for k in range(72)])
    return benchmark_from_datasets(train=[both], test=[both.eval()])


def same(rebuilt, original, indices=None):
    """Whether items, labels and attributes are equal under both groups of transforms."""
    chosen = range(len(original)) if indices is None else indices
    assert rebuilt._flat_data._transform_groups.current_group == original._flat_data._transform_groups.current_group
    for group in ("train", "eval"):
        mine, theirs = rebuilt.with_transforms(group), original.with_transforms(group)
        for position, index in enumerate(chosen):
            for a, b in zip(mine[position], theirs[index], strict=True):
                assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    for name, attribute in original._data_attributes.items():
        assert list(getattr(rebuilt, name)) == [attribute[i] for i in chosen]


MADE = {
    "from zero, first to last": lambda: renumbered(class_ids_from_zero_from_first_exp=True),
    "from zero in each": lambda: renumbered(class_ids_from_zero_in_each_exp=True),
    "permuted": permuted,
    "several": several,
}


@pytest.mark.parametrize("name", MADE)
def test_few_labels_keeps_transforms_of_inputs_and_labels(name):
    benchmark = MADE[name]()
    few = few_labels(benchmark, per_class=2)
    kept = few.description["labels"]["labelled"]
    for whole, mine, rest, indices in zip(
        benchmark.train_stream, few.train_stream, few.streams["unlabelled"], kept, strict=True
    ):
        same(mine.dataset, whole.dataset, indices)
        for group in ("train", "eval"):
            views = [tuple(x.tolist()) for x, *_ in whole.dataset.with_transforms(group)]
            others = {view for index, view in enumerate(views) if index not in indices}
            assert {tuple(x.tolist()) for x, *_ in rest.dataset.with_transforms(group)} == others
            assert {int(item[1]) for item in rest.dataset.with_transforms(group)} == {-1}
    for whole, mine in zip(benchmark.test_stream, few.test_stream, strict=True):
        same(mine.dataset, whole.dataset)


def test_renumbered_classes_are_those_that_avalanche_counts_from_zero():
    few = few_labels(renumbered(class_ids_from_zero_from_first_exp=True), per_class=4)
    assert [sorted({int(item[1]) for item in e.dataset}) for e in few.train_stream] == [[0, 1], [2, 3], [4, 5]]
    assert [sorted(e.classes_in_this_experience) for e in few.test_stream] == [[0, 1], [2, 3], [4, 5]]


def test_labels_that_a_transform_cannot_take_stay_hidden():
    names = {c: c + 1 for c in range(6)}
    data = as_classification_dataset(rows(), transform_groups=DefaultTransformGroups((None, names.__getitem__)))
    rest = few_labels(benchmark_from_datasets(train=[data], test=[data]), per_class=1).streams["unlabelled"][0]
    assert {item[1] for item in rest.dataset.train()} == {-1}


def test_ood_streams_get_the_transforms_of_inputs_of_each_experience():
    classes = rows().classes
    benchmark = renumbered(class_ids_from_zero_from_first_exp=True)
    stream = with_ood(benchmark, class_names=classes, other=rows(7000)).streams["ood_other"]
    for experience, own in zip(stream, benchmark.test_stream, strict=True):
        assert {int(item[1]) for item in experience.dataset} == set(own.classes_in_this_experience)
        for value, target, _ in experience.dataset:
            assert value[0] % 1 == 0.5 and round(float(value[0] - 7000) / 10) % 6 == target

    # The same classes in each experience: all items are in the first, and get its permutation.
    (experience,) = with_ood(permuted(), class_names=classes, other=rows(7000)).streams["ood_other"]
    assert experience.dataset[0][0].tolist() == (-torch.tensor([7000.0, 7001, 7002])[list(PERMUTATIONS[0])]).tolist()


def test_ood_streams_of_experiences_with_several_transforms_need_one_of_their_own():
    with pytest.raises(ValueError, match="Test experience 0 applies 2 different transforms"):
        with_ood(several(), class_names=rows().classes, other=rows())
    data = as_classification_dataset(rows(), transform_groups=TransformGroups({"train": None, "eval": torch.neg}))
    benchmark = benchmark_from_datasets(train=[data], test=[data.concat(data).eval()])
    stream = with_ood(benchmark, class_names=rows().classes, other=rows(7000)).streams["ood_other"]
    assert stream[0].dataset[0][0].tolist() == [-7000, -7001, -7002]


# ---- copies of streams -----------------------------------------------------------------------------------------------


def split(squares):
    return as_classification_dataset(squares("abcd"), transform_groups={"train": to_tensor, "eval": to_tensor})


TRANSFORMS = {"train_transform": to_tensor, "eval_transform": to_tensor}
KINDS = {
    "nc": lambda s: nc_benchmark(s("abcd"), s("abcd"), 2, False, seed=0, **TRANSFORMS),
    "nc, from zero": lambda s: nc_benchmark(
        s("abcd"), s("abcd"), 2, True, seed=0, class_ids_from_zero_in_each_exp=True, **TRANSFORMS
    ),
    "ni": lambda s: ni_benchmark(s("abcd"), s("abcd"), 2, **TRANSFORMS),
    "class incremental": lambda s: class_incremental_benchmark(
        {"train": split(s), "test": split(s)}, num_experiences=2
    ),
    "timeline": lambda s: with_classes_timeline(
        class_incremental_benchmark({"train": split(s), "test": split(s)}, num_experiences=2)
    ),
    "datasets": lambda s: benchmark_from_datasets(train=[split(s)], test=[split(s).eval(), split(s).eval()]),
    "validation": lambda s: benchmark_with_validation_stream(
        nc_benchmark(s("abcd"), s("abcd"), 2, False, seed=0, **TRANSFORMS), validation_size=0.5
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_streams_of_every_kind_are_evaluated(squares, make_naive, kind):
    benchmark = KINDS[kind](squares)
    stream = "valid" if kind == "validation" else "test"
    corrupted = with_corruptions(benchmark, ["contrast"], severities=[1], stream=stream)
    copies = corrupted.streams["ood_contrast_1"]
    for mine, theirs in zip(copies, benchmark.streams[stream], strict=True):
        assert mine.origin_stream is copies and mine.current_experience == theirs.current_experience
        assert list(mine.dataset.targets) == list(theirs.dataset.targets)
        assert [item[1:] for item in mine.dataset] == [item[1:] for item in theirs.dataset]
        assert not torch.equal(mine.dataset[0][0], theirs.dataset[0][0])
        for attribute in ("classes_in_this_experience", "classes_seen_so_far", "task_label", "task_labels"):
            assert hasattr(mine, attribute) == hasattr(theirs, attribute)
            if hasattr(mine, attribute):
                assert np.array_equal(np.sort(list(np.ravel(_plain(mine, attribute)))), _plain(theirs, attribute))
    results = make_naive(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))).eval(copies)
    assert any("ood_contrast_1_stream" in name for name in results)


def _plain(experience, attribute):
    value = getattr(experience, attribute)
    return sorted(value) if isinstance(value, (list, tuple, set)) else [value]


def test_several_rebuilt_in_turn(squares):
    data = squares("abcd", per_class=6)
    benchmark = nc_benchmark(
        data, squares("abcd"), 2, False, seed=0, class_ids_from_zero_from_first_exp=True, **TRANSFORMS
    )
    names = [n for _, n in sorted((benchmark.class_mapping[c], n) for c, n in enumerate("abcd"))]
    rebuilt = with_corruptions(with_ood(benchmark, class_names=names, again=squares("abcd")), ["fog"], [1])
    few = few_labels(with_corruptions(rebuilt, ["contrast"], [1], stream="ood_again"), per_class=2)
    for name in ("test", "ood_again", "ood_fog_1"):
        assert [sorted(e.dataset.targets) for e in few.streams[name]] == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]
        assert [sorted(item[1] for item in e.dataset) for e in few.streams[name]] == [
            [0] * 4 + [1] * 4,
            [2] * 4 + [3] * 4,
        ]
    for mine, theirs in zip(few.streams["ood_again"], few.streams["test"], strict=True):
        assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(mine.dataset, theirs.dataset, strict=True))
    assert isinstance(few.train_stream[0].dataset, AvalancheDataset)
