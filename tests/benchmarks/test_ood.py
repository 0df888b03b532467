"""with_ood: classes are matched by name, and plain Avalanche can evaluate the streams."""

import json

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import IncrementalClassifier
from torchvision.transforms.functional import to_tensor

from ftp_cl.benchmarks import CLASSES, few_labels, split_emoji, with_corruptions, with_ood
from ftp_cl.benchmarks.class_incremental import ClassSplit, split_classes
from ftp_cl.benchmarks.scenario import StreamKind


@pytest.fixture(scope="module")
def benchmark():
    return split_emoji(5, size=32, ood_domains=())


def items(stream):
    return [(tuple(image.flatten().tolist()), target) for e in stream for image, target, _ in e.dataset]


def test_stream_has_the_experiences_and_classes_of_the_test_stream(benchmark, squares):
    shifted = with_ood(benchmark, squares=squares(CLASSES), more=squares(reversed(CLASSES)))
    assert list(shifted.streams) == [*benchmark.streams, "ood_squares", "ood_more"]
    for stream in (shifted.streams["ood_squares"], shifted.streams["ood_more"]):
        assert [e.current_experience for e in stream] == list(range(5))
        for mine, theirs in zip(stream, benchmark.test_stream, strict=True):
            assert mine.classes_in_this_experience == theirs.classes_in_this_experience
            assert mine.classes_seen_so_far == theirs.classes_seen_so_far
            assert set(mine.dataset.targets) == set(theirs.classes_in_this_experience)
            assert mine.origin_stream is stream


def test_every_stream_says_what_it_is_for(squares):
    benchmark = few_labels(split_emoji(5, size=32, ood_domains="noto", train_domains="blob"), per_class=2)
    benchmark = with_ood(with_corruptions(benchmark, "fog", (1, 4)), more=squares(CLASSES))
    kinds = {name: stream.kind for name, stream in benchmark.streams.items()}
    fog = {f"ood_fog_{severity}": StreamKind("ood", "fog", severity) for severity in (1, 4)}
    roles = {name: StreamKind(name) for name in ("train", "validation", "test", "unlabelled")}
    assert kinds == {**roles, "ood_noto": StreamKind("ood"), "ood_more": StreamKind("ood"), **fog}
    about = benchmark.description["ood"]["ood_fog_4"]
    assert (about["corrupted"], about["corruption"], about["severity"]) == ("test", "fog", 4)


def test_items_carry_the_benchmarks_class_index_whatever_the_order_in_the_dataset(benchmark, squares):
    dataset = squares(reversed(CLASSES))
    stream = with_ood(benchmark, more=dataset).streams["ood_more"]
    names = {tuple(to_tensor(i).flatten().tolist()): dataset.classes[t] for i, t in (dataset[k] for k in range(80))}
    found = items(stream)
    assert len(found) == 80
    assert all(names[image] == CLASSES[target] for image, target in found)


def test_classes_that_only_one_side_has_are_left_out_and_recorded(benchmark, squares):
    last = benchmark.description["experiences"][4]["names"]
    shifted = with_ood(benchmark, part=squares([last[1], "teapot", last[0]]))
    stream = shifted.streams["ood_part"]
    assert [e.current_experience for e in stream] == [4] and len(stream[0].dataset) == 8
    assert {CLASSES[t] for _, t in items(stream)} == {last[0], last[1]}
    recorded = shifted.description["ood"]["ood_part"]
    assert recorded == {"classes": sorted(CLASSES.index(n) for n in last[:2]), "left_out": ["teapot"]}
    assert shifted.description["stream_sizes"]["ood_part"] == [8]
    assert json.loads(json.dumps(shifted.description)) == shifted.description
    assert benchmark.description["ood"] == {} and "ood_part" not in benchmark.streams


def test_names_that_differ_can_be_mapped(benchmark, squares):
    stream = with_ood(benchmark, wordnet=squares(["n01503061"]), rename={"n01503061": "bird"}).streams["ood_wordnet"]
    assert {target for _, target in items(stream)} == {CLASSES.index("bird")}


def test_inputs_get_the_transform_of_the_test_stream_or_ones_own(squares):
    benchmark = split_emoji(5, size=32, ood_domains=(), eval_transform=lambda image: image.size)
    assert with_ood(benchmark, a=squares(CLASSES)).streams["ood_a"][0].dataset[0][0] == (32, 32)
    other = with_ood(benchmark, a=squares(CLASSES), eval_transform=lambda image: image.mode)
    assert other.streams["ood_a"][0].dataset[0][0] == "RGB"


def test_task_labels_are_those_of_the_test_stream(squares):
    benchmark = split_emoji(5, size=32, ood_domains=(), return_task_id=True)
    for number, experience in enumerate(with_ood(benchmark, a=squares(CLASSES)).streams["ood_a"]):
        assert (experience.task_label, experience.task_labels) == (number, [number])
        assert experience.dataset[0][2] == number


def test_any_benchmark_of_avalanche_can_be_extended_and_naive_evaluates_it(squares, make_naive):
    train, test = squares("abcd"), squares("abcd", seed=1)
    plain = nc_benchmark(train, test, 2, task_labels=False, seed=3, train_transform=to_tensor, eval_transform=to_tensor)
    with pytest.raises(ValueError, match="give class_names="):
        with_ood(plain, other=squares("abcd"))
    benchmark = with_ood(plain, other=squares("dcb", seed=2), class_names="abcd")
    strategy = make_naive(torch.nn.Sequential(torch.nn.Flatten(), IncrementalClassifier(3 * 32 * 32, 4)))
    for experience in benchmark.train_stream:
        strategy.train(experience)
    results = strategy.eval(benchmark.streams["ood_other"])
    assert 0 <= results["Top1_Acc_Stream/eval_phase/ood_other_stream/Task000"] <= 1
    assert sum(len(e.dataset) for e in benchmark.streams["ood_other"]) == 12


def test_benchmarks_without_a_classes_timeline_are_matched_by_their_items(squares):
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset

    parts = [as_classification_dataset(squares("abcd")).subset(range(8 * j, 8 * j + 8)) for j in range(2)]
    plain = benchmark_from_datasets(train=parts, test=parts)
    stream = with_ood(plain, other=squares("dc"), class_names="abcd", eval_transform=to_tensor).streams["ood_other"]
    assert [e.current_experience for e in stream] == [1] and {t for _, t in items(stream)} == {2, 3}
    assert len(with_corruptions(plain, "contrast", 1).streams["ood_contrast_1"]) == 2


def test_classes_of_one_name_are_refused_where_they_would_be_taken_for_each_other(benchmark, squares):
    cranes = squares(["crane", "hammer", "crane", "car"])
    with pytest.raises(ValueError, match="2 classes of the dataset to train on are called 'crane'"):
        split_classes("mine", cranes, cranes, ClassSplit(2, 0), {})
    plain = nc_benchmark(cranes, cranes, n_experiences=2, task_labels=False, shuffle=False)
    with pytest.raises(ValueError, match="2 classes of class_names are called 'crane'"):
        with_ood(plain, class_names=cranes.classes, sketch=cranes)
    birds = squares(["bird", CLASSES[1], "bird", "crane", "crane"])
    with pytest.raises(ValueError, match="dataset 'birds' that the benchmark has, too, are called 'bird'"):
        with_ood(benchmark, birds=birds)
    other = with_ood(benchmark, birds=birds, rename={"bird": "other"})  # others than the benchmark's may be anything
    assert other.description["ood"]["ood_birds"]["classes"] == [1]


def test_wrong_arguments_raise_one_clear_sentence(benchmark, squares):
    with pytest.raises(ValueError, match="its first is 'birds', the benchmark has for instance 'bird'"):
        with_ood(benchmark, other=squares(["birds"]))
    twice = with_ood(benchmark, other=squares(CLASSES))
    with pytest.raises(ValueError, match="has a stream 'ood_other' already"):
        with_ood(twice, other=squares(CLASSES))
