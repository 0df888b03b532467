"""split_emoji: which emoji are in which stream, and what a seed decides."""

import json
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from ftp_cl.benchmarks import CLASSES, DOMAINS, emoji_styles, split_emoji


def source(dataset):
    """The EmojiDomains and the indices into it that an Avalanche dataset is made of."""
    flat = dataset._flat_data
    indices = range(len(flat))
    while hasattr(flat, "_datasets"):
        assert len(flat._datasets) == 1
        if flat._indices is not None:
            indices = [flat._indices[i] for i in indices]
        flat = flat._datasets[0]
    return flat, list(indices)


def drawn(benchmark, stream):
    """(style, emoji) of every item of a stream."""
    items = []
    for experience in benchmark.streams[stream]:
        emoji, indices = source(experience.dataset)
        items += [(emoji.domains[i], emoji.identities[i]) for i in indices]
    return items


def identities(benchmark, stream):
    return {identity for _, identity in drawn(benchmark, stream)}


def names_in(by_class):
    return {name for names in by_class.values() for name in names}


@pytest.fixture(scope="module")
def benchmark():
    return split_emoji(size=16)


def test_streams_are_train_test_validation_and_one_per_other_style(benchmark):
    assert list(benchmark.streams) == ["train", "test", "validation"] + [f"ood_{d}" for d in DOMAINS if d != "noto"]
    assert [stream.name for stream in benchmark.streams.values()] == list(benchmark.streams)
    assert benchmark.train_stream is benchmark.streams["train"]
    for stream in benchmark.streams.values():
        assert [experience.current_experience for experience in stream] == list(range(5))
        assert all(experience.origin_stream is stream for experience in stream)


def test_every_stream_has_the_same_classes_per_experience_and_a_timeline(benchmark):
    order = benchmark.description["class_order"]
    for stream in benchmark.streams.values():
        for number, experience in enumerate(stream):
            assert experience.classes_in_this_experience == order[4 * number : 4 * number + 4]
            assert set(experience.dataset.targets) == set(experience.classes_in_this_experience)
            assert experience.previous_classes == order[: 4 * number]
            assert experience.classes_seen_so_far == order[: 4 * number + 4]
            assert experience.future_classes == order[4 * number + 4 :]


def test_training_validation_and_test_share_no_emoji_and_lose_none(benchmark):
    training, validation, test = (identities(benchmark, name) for name in ("train", "validation", "test"))
    assert not training & validation and not training & test and not validation & test
    assert len(training) + len(validation) == 368 and len(test) == 244


def test_ood_streams_show_the_test_emoji_in_their_own_style(benchmark):
    for domain in DOMAINS[1:]:
        assert {style for style, _ in drawn(benchmark, f"ood_{domain}")} == {domain}
        assert identities(benchmark, f"ood_{domain}") == identities(benchmark, "test")


def test_emoji_in_validation_is_in_validation_for_every_training_style():
    benchmark = split_emoji(train_domains=["noto", "line_art"], size=16)
    assert [name for name in benchmark.streams if name.startswith("ood")] == [
        f"ood_{d}" for d in DOMAINS if d not in ("noto", "line_art")
    ]
    for stream in ("train", "validation", "test"):
        items = drawn(benchmark, stream)
        assert len(items) == len(set(items)) == 2 * len({identity for _, identity in items})
    assert not identities(benchmark, "train") & identities(benchmark, "validation")


def test_validation_has_a_fifth_of_each_class_and_one_at_least():
    for fraction, expected in ((0.2, 1), (0.01, 1), (0.5, 4)):
        drawn = split_emoji(size=16, ood_domains=(), validation_fraction=fraction).description
        assert len(drawn["validation_identities"]["bird"]) == expected  # of 7
    assert len(drawn["validation_identities"]["face"]) == 14  # of 27


def test_items_are_float_tensors_in_0_1_with_class_and_task_label(benchmark):
    for name in ("train", "test", "validation", "ood_line_art"):
        image, target, task = benchmark.streams[name][1].dataset[0]
        assert image.shape == (3, 16, 16) and image.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert target in benchmark.streams[name][1].classes_in_this_experience and task == 0


def test_task_labels_are_the_experience_index_if_asked_for():
    benchmark = split_emoji(4, size=16, ood_domains="blob", return_task_id=True)
    for stream in benchmark.streams.values():
        for number, experience in enumerate(stream):
            assert (experience.task_label, experience.task_labels) == (number, [number])
            assert experience.dataset[0][2] == number


def test_train_stream_starts_with_train_transform_and_others_with_eval_transform():
    benchmark = split_emoji(
        size=16, ood_domains="blob", train_transform=lambda image: "training", eval_transform=lambda image: "evaluation"
    )
    for name, stream in benchmark.streams.items():
        dataset = stream[0].dataset
        assert dataset[0][0] == ("training" if name == "train" else "evaluation")
        assert (dataset.train()[0][0], dataset.eval()[0][0]) == ("training", "evaluation")


@pytest.mark.parametrize("n_experiences", [1, 4, 20])
def test_all_classes_arrive_once_whatever_the_number_of_experiences(n_experiences):
    benchmark = split_emoji(n_experiences, size=8, ood_domains="line_art")
    for stream in benchmark.streams.values():
        assert len(stream) == n_experiences
        assert sorted(c for experience in stream for c in experience.classes_in_this_experience) == list(range(20))


def test_same_seed_gives_the_same_benchmark_and_another_seed_another():
    first, again, other = (split_emoji(size=8, ood_domains=(), seed=seed).description for seed in (3, 3, 4))
    assert first == again
    assert first["class_order"] != other["class_order"]
    assert first["validation_identities"] != other["validation_identities"]


def test_shots_are_nested_and_leave_validation_as_it_is():
    every = {shots: split_emoji(size=8, ood_domains=(), shots=shots) for shots in (1, 2, 4, None)}
    taken = {shots: identities(benchmark, "train") for shots, benchmark in every.items()}
    assert taken[1] < taken[2] < taken[4] < taken[None]
    assert {shots: len(members) for shots, members in taken.items() if shots} == {1: 20, 2: 40, 4: 80}
    assert len({frozenset(identities(benchmark, "validation")) for benchmark in every.values()}) == 1
    assert names_in(every[2].description["training_identities"]) == taken[2]


def test_shots_do_not_depend_on_class_order_or_training_styles():
    reference = split_emoji(size=8, ood_domains=(), shots=3, seed=1)
    reversed_order = split_emoji(size=8, ood_domains=(), shots=3, seed=1, fixed_class_order=range(19, -1, -1))
    two_styles = split_emoji(size=8, ood_domains=(), shots=3, seed=1, train_domains=("blob", "noto"))
    assert identities(reference, "train") == identities(reversed_order, "train") == identities(two_styles, "train")
    assert len(drawn(two_styles, "train")) == 2 * len(drawn(reference, "train"))


def test_description_says_what_was_drawn_and_fits_a_json_file(benchmark):
    description = benchmark.description
    assert json.loads(json.dumps(description)) == description
    assert description["train_domains"] == ["noto"] and len(description["ood_domains"]) == 6
    for number, experience in enumerate(description["experiences"]):
        assert experience["names"] == [CLASSES[c] for c in experience["classes"]]
        assert experience["classes"] == benchmark.train_stream[number].classes_in_this_experience
    assert description["stream_sizes"] == {
        name: [len(experience.dataset) for experience in stream] for name, stream in benchmark.streams.items()
    }
    assert names_in(description["validation_identities"]) == identities(benchmark, "validation")


def test_pickled_benchmark_is_small_and_equal(benchmark):
    stored = pickle.dumps(benchmark)
    assert len(stored) < 100_000
    again = pickle.loads(stored)
    assert again.description == benchmark.description
    for name, stream in benchmark.streams.items():
        assert drawn(again, name) == drawn(benchmark, name)
        expected, item = stream[2].dataset[5], again.streams[name][2].dataset[5]
        assert torch.equal(item[0], expected[0]) and item[1:] == expected[1:]


def test_data_loader_with_two_workers_gives_the_items_in_order(benchmark):
    dataset = benchmark.test_stream[0].dataset
    loader = DataLoader(dataset, batch_size=16, num_workers=2, collate_fn=dataset.collate_fn)
    images, targets, tasks = (torch.cat(column) for column in zip(*loader, strict=True))
    assert torch.equal(images, torch.stack([dataset[i][0] for i in range(len(dataset))]))
    assert targets.tolist() == list(dataset.targets) and not tasks.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_experiences": 3}, "n_experiences=3 does not divide the 20 classes evenly: use one of 1, 2, 4, 5, 10, 20."),
        ({"n_experiences": 0}, "n_experiences=0"),
        ({"train_domains": "nto"}, "Unknown domain 'nto': did you mean 'noto'?"),
        ({"ood_domains": ("blob", "blob")}, "'blob' is given twice"),
        ({"ood_domains": "sketch"}, "Unknown domain 'sketch'"),
        ({"ood_domains": ("blob", "noto")}, "'noto' is in train_domains and in ood_domains"),
        ({"shots": 0}, "shots=0 is no number of images to train on"),
        ({"shots": 8}, "Class 'bird' has 6 training identities beside 1 for validation, fewer than the 8 asked for"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0 must lie between 0 and 1"),
        ({"validation_fraction": 0.97}, "'bird' has 0 training identities beside 7 for validation"),
        ({"fixed_class_order": range(19)}, "missing [19], repeated or unknown none"),
        ({"fixed_class_order": [20, *range(1, 20)]}, "missing [0], repeated or unknown [20]"),
    ],
)
def test_wrong_arguments_raise_one_clear_sentence(arguments, message, one_sentence):
    one_sentence(lambda: split_emoji(**{"size": 8, "ood_domains": (), **arguments}), message)


# ---- emoji_styles ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def styles():
    return emoji_styles(("twemoji", "noto"), size=16, shots=4, seed=3)


def test_each_experience_is_a_style_with_all_classes(styles):
    for stream in ("train", "validation", "test"):
        shown = [{style for style, _ in drawn_from(e)} for e in styles.streams[stream]]
        assert shown == [{"twemoji"}, {"noto"}]
        assert all(e.classes_in_this_experience == list(range(20)) for e in styles.streams[stream])
    assert {name for name in styles.streams if name.startswith("ood_")} == {
        f"ood_{style}" for style in DOMAINS if style not in ("twemoji", "noto")
    }
    assert [len(e.dataset) for e in styles.train_stream] == [80, 80]


def test_no_emoji_is_in_two_parts_in_whatever_style(styles):
    parts = {stream: {name for e in styles.streams[stream] for _, name in drawn_from(e)} for stream in styles.streams}
    assert not parts["train"] & parts["validation"]
    assert not parts["test"] & (parts["train"] | parts["validation"])
    assert parts["ood_blob"] == parts["test"]
    first, second = ({name for _, name in drawn_from(e)} for e in styles.train_stream)
    assert first == second


def drawn_from(experience):
    emoji, indices = source(experience.dataset)
    return [(emoji.domains[i], emoji.identities[i]) for i in indices]


def test_without_a_validation_stream_its_emoji_are_trained_on():
    benchmark = split_emoji(2, validation_fraction=None, size=8, ood_domains=())
    with_one = split_emoji(2, size=8, ood_domains=())
    assert "validation" not in benchmark.streams and benchmark.description["validation_identities"] is None
    together = [sum(len(with_one.streams[name][e].dataset) for name in ("train", "validation")) for e in (0, 1)]
    assert [len(experience.dataset) for experience in benchmark.train_stream] == together


def test_experiences_may_have_sizes_of_their_own():
    order = [*reversed(range(20))]
    benchmark = split_emoji([12, 1, 7], size=8, ood_domains=(), fixed_class_order=order)
    assert [e.classes_in_this_experience for e in benchmark.test_stream] == [order[:12], order[12:13], order[13:]]
    assert benchmark.description["class_order"] == order
    for wrong in ([12, 7], [20, 0], [10.0, 10], [12, 9], []):
        with pytest.raises(ValueError, match=r"must list how many classes each experience has, at least 1, and 20 tog"):
            split_emoji(wrong, size=8, ood_domains=())
