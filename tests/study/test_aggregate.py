"""Which runs form a group, what the group is called, and its means and deviations."""

import numpy as np
import pytest

from ftp_cl.study.aggregate import aggregate
from ftp_cl.study.loading import ReportError, load_results


def labels(root):
    return {group.label for group in aggregate(load_results([root]))}


def test_runs_that_differ_in_seed_and_output_only_are_one_group(runs):
    groups = aggregate(load_results([runs]))
    assert [(group.label, len(group.results)) for group in groups] == [("ftp", 3), ("ewc", 3), ("naive", 3)]
    assert [run.seed for run in groups[0].results] == [0, 1, 2]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        (
            [
                *({"config": {"optimizer": {"backbone_lr": rate, "momentum": 0.9}}} for rate in (1e-5, 1e-3)),
                {"method": "ewc"},
            ],
            {"naive (optimizer.backbone_lr=1e-05)", "naive (optimizer.backbone_lr=0.001)", "ewc"},
        ),
        ([{"config": {"warmup": 0.3}}, {}], {"naive (warmup=0.3)", "naive (warmup=unset)"}),
        (
            [{"model": model, "config": {"model": {"name": model}}} for model in ("resnet18", "vit_tiny")],
            {"naive (model.name=resnet18)", "naive (model.name=vit_tiny)"},
        ),
        ([{"model": "resnet18"}, {"model": "vit_tiny"}], {"naive (model=resnet18)", "naive (model=vit_tiny)"}),
        (
            [{"config": {"label": label, "lr": 1}} for label in ("tuned", "untuned", "")],
            {"tuned", "untuned", "naive"},
        ),
        ([{"benchmark": "one"}, {"benchmark": "two"}], {"naive"}),
    ],
)
def test_groups_of_one_benchmark_are_told_apart_by_label_or_method_and_what_differs(tmp_path, make_run, runs, expected):
    for number, run in enumerate(runs):
        make_run(tmp_path / str(number), **run)
    assert labels(tmp_path) == expected


def test_keys_that_are_null_or_change_no_number_tell_no_runs_apart(tmp_path, make_run):
    make_run(tmp_path / "a", seed=0, config={"resume": False, "checkpoint": {"every_minutes": 10}})
    make_run(tmp_path / "b", seed=1, config={"strategy": None, "loggers": ["tensorboard"]})
    (group,) = aggregate(load_results([tmp_path]))
    assert len(group.results) == 2


def test_a_whole_number_and_the_same_with_a_point_tell_no_runs_apart(tmp_path, make_run):
    make_run(tmp_path / "a", seed=0, config={"method": {"k": 0}, "sizes": [1, 2.0]})
    make_run(tmp_path / "b", seed=1, config={"method": {"k": 0.0}, "sizes": [1.0, 2]})
    (group,) = aggregate(load_results([tmp_path]))
    assert len(group.results) == 2
    make_run(tmp_path / "c", seed=1, config={"method": {"k": 0.5}, "sizes": [1, 2]})
    assert labels(tmp_path) == {"naive (method.k=0)", "naive (method.k=0.5)"}


def test_long_values_that_begin_alike_still_give_different_labels(tmp_path, make_run):
    for last in (1, 2):
        make_run(tmp_path / str(last), config={"class_order": [*range(100), last]})
    found = labels(tmp_path)
    assert len(found) == 2
    assert all(len(label) < 80 for label in found)


def test_a_seed_that_occurs_twice_in_a_group_is_an_error_that_names_both_files(tmp_path, make_run):
    make_run(tmp_path / "first", seed=3)
    make_run(tmp_path / "second", seed=3, config={"out": "elsewhere"}, start=70)
    with pytest.raises(ReportError, match=r"first.result\.json and .*second.result\.json are the same run twice"):
        aggregate(load_results([tmp_path]))


def test_a_repeated_run_with_the_same_numbers_counts_once(tmp_path, make_run):
    for name, seed in (("first", 3), ("again", 3), ("and-again", 3), ("other", 4)):
        make_run(tmp_path / name, seed=seed, config={"out": name})
    (group,) = aggregate(load_results([tmp_path]))
    assert [run.seed for run in group.results] == [3, 4]


def test_matrices_of_different_size_in_a_group_are_an_error(tmp_path, make_run):
    make_run(tmp_path / "a", seed=0, experiences=4)
    make_run(tmp_path / "b", seed=1, experiences=5)
    with pytest.raises(ReportError, match=r"has 4 experiences and .* has 5"):
        aggregate(load_results([tmp_path]))


def test_spread_is_mean_sample_deviation_and_number(runs):
    group = aggregate(load_results([runs]))[0]
    values = [run.average_accuracy for run in group.results]
    spread = group.spread(lambda run: run.average_accuracy)
    assert (spread.mean, spread.std, spread.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        3,
    )


def test_one_seed_has_no_deviation_and_a_missing_number_no_spread(tmp_path, make_run):
    (group,) = aggregate(load_results([make_run(tmp_path, ood=())]))
    assert group.spread(lambda run: run.average_accuracy).std is None
    assert group.spread(lambda run: run.ood_average) is None


def test_mean_matrix_averages_what_was_evaluated(runs):
    group = aggregate(load_results([runs]))[0]
    mean = group.mean_matrix()
    assert mean[4, 0] == pytest.approx(np.mean([run.accuracy_matrix[4, 0] for run in group.results]))
    assert np.isnan(mean[0, 4])
