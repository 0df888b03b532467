"""Result files: what is read, and what is refused with one sentence that names the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from ftp_cl.metrics import summarize
from ftp_cl.study.loading import ReportError, load_results, results_of_rows
from ftp_cl.study.store import read_frame, runs_of_frame
from ftp_cl.study.write import write_report


def write(directory, content):
    directory.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "result.json").write_text(text, encoding="utf-8")
    return directory


def test_results_are_found_recursively_once_and_in_the_order_of_their_paths(tmp_path, make_run):
    make_run(tmp_path / "b" / "deep" / "er", method="ftp")
    make_run(tmp_path / "a", method="naive")
    results = load_results([tmp_path, tmp_path / "b", tmp_path / "a" / "result.json"])
    assert [result.method for result in results] == ["naive", "ftp"]


def test_a_result_carries_what_the_file_says(tmp_path, make_run, result_content):
    make_run(tmp_path, method="ftp", tensors=["a.weight", "b.weight"])
    content = result_content(method="ftp", tensors=["a.weight", "b.weight"])
    (result,) = load_results([tmp_path])
    assert (result.method, result.seed, result.experiences) == ("ftp", 0, 5)
    assert result.average_accuracy == content["average_accuracy"]
    assert np.isnan(result.accuracy_matrix[0, 1])
    assert result.accuracy_matrix[4].tolist() == content["accuracy_matrix"][4]
    assert list(result.projection) == ["a.weight", "b.weight"]
    assert result.projection["a.weight"].radius == content["projection"]["a.weight"]["radius"]
    over_images = np.average(content["accuracy_matrix"][4], weights=[10, 20, 30, 40, 50])
    assert result.relative_robustness == pytest.approx(content["ood_average"] / over_images)
    assert len(result.radii_after_each_experience) == 5


def test_keys_of_later_versions_and_missing_measurements_are_accepted(tmp_path, result_content):
    content = result_content(step_seconds_median=None, peak_memory_mb=None, note="a key that is not known yet")
    (result,) = load_results([write(tmp_path, content)])
    assert result.step_seconds_median is None


def test_one_experience_without_ood_is_a_result(tmp_path, make_run):
    (result,) = load_results([make_run(tmp_path, experiences=1, ood=())])
    assert (result.average_forgetting, result.ood_average, result.relative_robustness) == (None, None, None)


def test_control_characters_in_names_are_escaped(tmp_path, make_run):
    (result,) = load_results([make_run(tmp_path, method="na\u202eï\nve\x00")])
    assert result.method == r"na\u202eï ve\x00"


@pytest.mark.parametrize("dirs", [[], ["empty"]])
def test_no_result_is_an_error(tmp_path, dirs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match=r"no result\.json or runs\.parquet under"):
        load_results([tmp_path / name for name in dirs])


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(ReportError, match="nowhere: no such directory"):
        load_results([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or truncated"),
        ('{"schema": "ftp_cl.result/1", "benchm', "damaged or truncated"),
        ('{"schema": NaN}', "NaN is not a number of JSON"),
        ("[1, 2]", "a JSON object was expected"),
        ("[" * 100_000, "nested too deeply"),
        ('{"anything": 1}', "the schema is None"),
        ('{"schema": "ftp_cl.result/2"}', "the schema is 'ftp_cl.result/2', but this version reads 'ftp_cl.result/1'"),
        ('{"schema": "ftp_cl.result/1"}', "the key 'benchmark' is missing"),
    ],
)
def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(ReportError, match=message) as error:
        load_results([write(tmp_path, text)])
    assert str(error.value).startswith(str(tmp_path / "result.json"))
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "result.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="damaged or truncated"):
        load_results([tmp_path])


def test_every_truncation_is_refused(tmp_path, result_content):
    text = json.dumps(result_content(experiences=2))
    for length in range(0, len(text) - 1, 37):
        with pytest.raises(ReportError, match=r"result\.json: "):
            load_results([write(tmp_path, text[:length])])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("benchmark", 3, "benchmark must be text, but is 3"),
        ("method", " ", "method must not be empty"),
        ("seed", 1.5, "seed must be a whole number"),
        ("seed", True, "seed must be a whole number"),
        ("config", [], "config must be an object"),
        ("accuracy_matrix", {}, "accuracy_matrix must be a list"),
        ("accuracy_matrix", [[1.0], ["2", 3.0]], "accuracy_matrix must be a number, but is '2'"),
        ("accuracy_matrix", [[1.0, 2.0]], "must be square"),
        ("accuracy_matrix", [[50.0, None], [None, 60.0]], "missing"),
        ("accuracy_matrix", [[101.0]], "percent"),
        ("average_accuracy", None, "average_accuracy must be a number"),
        ("average_accuracy", 10**400, "average_accuracy must be a number, but is 1000"),
        ("average_accuracy", 12.0, "average_accuracy is 12.00, but the accuracies give"),
        ("average_forgetting", None, "average_forgetting is null, but the accuracies give"),
        ("backward_transfer", 50.0, "backward_transfer is 50.00, but"),
        ("ood", {"a": "b"}, "ood must be a number"),
        ("ood", {"a": 101.0}, "accuracy on a must be percent"),
        ("ood_average", None, "ood_average is null, but the accuracies give"),
        ("ood", {}, "ood_average is .* but the accuracies give null"),
        ("train_seconds", -1.0, "train_seconds must be greater than or equal to 0"),
        ("classes_per_experience", [["a"]], "lists 1 experiences, the matrix has 5"),
        ("projection", {"w": {"radius": 1.0}}, "the key 'projection.w.mean_distance' is missing"),
        ("projection", {"w": 1.0}, "projection must be an object"),
    ],
)
def test_wrong_types_and_contradictions_are_refused(tmp_path, result_content, key, value, message):
    with pytest.raises(ReportError, match=message) as error:
        load_results([write(tmp_path, {**result_content(), key: value})])
    assert str(error.value).startswith(str(tmp_path / "result.json"))


def test_rounded_summary_numbers_agree(tmp_path, result_content):
    content = result_content()
    content["average_accuracy"] = round(content["average_accuracy"], 2)
    assert load_results([write(tmp_path, content)])


def test_radii_survive_cut_and_foreign_lines_and_the_last_of_a_repeated_experience_counts(tmp_path, make_run):
    make_run(tmp_path)
    lines = [
        '{"event": "projection", "experience": 1, "tensors": {"w": {"radius": 2.0}}}',
        '{"event": "projection", "experience": 0, "tensors": {"w": {"radius": 1.0}}}',
        '{"event": "train", "note": "projection"}',
        '{"event": "projection", "experience": 2}',
        '{"event": "projection", "experience": 3, "tensors": {}}',
        '["projection"]',
        '{"event": "projection", "experience": 1, "tensors": {"w": {"radius": 3.0}}}',
        '{"event": "projection", "experience": 2, "tens',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (result,) = load_results([tmp_path])
    assert result.radii_after_each_experience == [{"w": 1.0}, {"w": 3.0}]


def test_radii_that_are_not_finite_are_left_out_and_end_where_none_is_known(tmp_path, make_run):
    make_run(tmp_path, method="ftp", tensors=["v", "w"])
    lines = [
        '{"event": "projection", "experience": 0, "tensors": {"v": {"radius": 1.0}, "w": {"radius": 2.0}}}',
        '{"event": "projection", "experience": 1, "tensors": {"v": {"radius": 1e999}, "w": {"radius": 2.0}}}',
        '{"event": "projection", "experience": 2, "tensors": {"v": {"radius": NaN}, "w": {"radius": null}}}',
        '{"event": "projection", "experience": 3, "tensors": {"v": {"radius": 1.0}}}',
        '{"event": "projection", "experience": 1e999, "tensors": {"v": {"radius": 1.0}}}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (result,) = write_report([tmp_path], tmp_path / "out").results
    assert result.radii_after_each_experience == [{"v": 1.0, "w": 2.0}, {"w": 2.0}]


def test_a_run_without_events_has_no_radii(tmp_path, make_run):
    (result,) = load_results([make_run(tmp_path)])
    assert result.radii_after_each_experience == []


def with_last_row(content, last, ood, data):
    """A result whose last row and OOD accuracy are given, and what the benchmark recorded."""
    matrix = [[float(accuracy) for accuracy in last]] * len(last)
    return {**content, **summarize(matrix, {"ood_x": ood}), "data": {**content["data"], **data}}


@pytest.mark.parametrize(
    ("classes", "sizes", "recorded", "id_accuracy"),
    [
        ([[0], [1], [2]], [60, 10, 30], None, (60 * 90 + 10 * 20 + 30 * 40) / 100),
        ([[0], [1], [2]], [5, 15], [0, 2], (5 * 90 + 15 * 40) / 20),  # nothing of class 1
        ([[0, 1]] * 3, [77], [0, 1], (10 * 90 + 20 * 20 + 70 * 40) / 100),  # domains: OOD is about all of them
        ([[0, 1], [2, 3], [4, 5]], [5, 15, 9], [0, 2, 3, 4, 5], None),  # class 1 cannot be taken out
        ([[0], [1], [2]], [5, 15], None, None),  # which experience is missing is not known
        ([[0], [1], [2]], None, None, None),
    ],
)
def test_ood_is_divided_by_the_accuracy_on_the_same_classes_with_the_same_weights(
    tmp_path, result_content, classes, sizes, recorded, id_accuracy
):
    recorded_sizes = {"test": [10, 20, 70]} if sizes is None else {"test": [10, 20, 70], "ood_x": sizes}
    data = {"experiences": [{"classes": c} for c in classes], "stream_sizes": recorded_sizes}
    data |= {} if recorded is None else {"ood": {"ood_x": {"classes": recorded}}}
    content = with_last_row(result_content(experiences=3), [90, 20, 40], 30.0, data)
    (result,) = load_results([write(tmp_path, content)])
    assert result.relative_robustness == (None if id_accuracy is None else pytest.approx(30 / id_accuracy))


def test_the_test_images_as_ood_stream_give_a_ratio_of_exactly_one(tmp_path, result_content):
    last, sizes = [90.123456, 20.654321, 40.333333], [7, 11, 13]
    ood = round(sum(a * n for a, n in zip(last, sizes, strict=True)) / 31, 6)
    data = {"stream_sizes": {"test": sizes, "ood_x": sizes}}
    (result,) = load_results([write(tmp_path, with_last_row(result_content(experiences=3), last, ood, data))])
    assert result.relative_robustness == 1.0


def test_stored_results_weigh_id_as_ood():
    path = Path(__file__).parents[2] / "results" / "comparison" / "runs.parquet"
    rows = [row for row in runs_of_frame(read_frame(path)) if row["row"] == "naive" and row["seed"] == 0]
    for row, result in zip(rows, results_of_rows(path, rows), strict=True):
        last, sizes = row["accuracy_matrix"][-1], row["data"]["stream_sizes"]
        id_accuracy = np.average(last, weights=sizes["test"])  # OOD streams have these sizes, or all classes at once
        assert result.relative_robustness == pytest.approx(row["ood_average"] / id_accuracy, abs=1e-6)
    assert len(rows) > 5


def test_a_stream_in_which_an_experience_comes_again_is_a_result(tmp_path, result_content):
    matrix = [[90.0, 10.0], [60.0, 80.0], [95.0, 20.0]]
    content = {**result_content(experiences=3, ood=()), **summarize(matrix, {}, [0, 1])}
    (result,) = load_results([write(tmp_path, content)])
    assert result.experiences == 3 and result.learning_accuracy == 85
    assert result.accuracy_after_each_experience() == pytest.approx([90, 70, 57.5])
    assert result.old_experiences.tolist() == [0, 1] and result.forgetting_per_experience().tolist() == [-5, 60]
    write_report([tmp_path], tmp_path / "out")


def test_what_a_benchmark_says_of_a_stream_counts_for_more_than_its_name(tmp_path, make_run, result_content):
    streams = ("ood_set_1", "ood_set_2", "ood_misty", "ood_fog_5", "ood_else")
    about = {
        "ood_set_1": {"classes": [0], "left_out": []},
        "ood_misty": {"corrupted": "test", "corruption": "fog", "severity": 1},
        "ood_fog_5": {"corrupted": "test"},  # older
        "ood_else": ["nonsense"],
    }
    make_run(tmp_path, ood=streams, data={**result_content(ood=streams)["data"], "ood": about})
    (result,) = load_results([tmp_path])
    assert result.corruptions == {"ood_set_2": ("set", 2), "ood_misty": ("fog", 1), "ood_fog_5": ("fog", 5)}
