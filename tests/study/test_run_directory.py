"""Run directories are found wherever links lead, each once; nothing is lost without a word, and nothing hangs."""

import os

import pytest

from ftp_cl.runs.status import statuses
from ftp_cl.runs.text import printable
from ftp_cl.study.loading import ReportError, find_results, load_results
from ftp_cl.study.write import write_report

CONFIG = "benchmark:\n  name: a\nmethod:\n  k: 0\n  name: b\nmodel:\n  name: c\nseed: 0\n"


def write_config(directory, text=CONFIG):
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(text)
    return directory


def test_runs_behind_links_are_found_once_and_loops_end(tmp_path, make_run):
    make_run(tmp_path / "scratch" / "a", seed=0)
    write_config(tmp_path / "scratch" / "b")
    make_run(tmp_path / "runs" / "c", seed=1)
    for name, target in [
        *(("linked", tmp_path / "scratch"), ("again", "../scratch/a"), ("loop", "."), ("up", tmp_path)),
        ("c-too", "c"),
    ]:
        (tmp_path / "runs" / name).symlink_to(target)
    assert {result.seed for result in load_results([tmp_path / "runs"])} == {0, 1}
    assert len(load_results([tmp_path / "runs", tmp_path / "scratch"])) == 2
    (status,) = statuses(tmp_path / "runs")
    assert status.directory == tmp_path / "runs" / "linked" / "b"
    # "up" leads to what stands beside the runs: only what is linked itself was asked for.
    make_run(tmp_path / "beside", seed=2)
    assert len(load_results([tmp_path / "runs"])) == 2


@pytest.mark.parametrize(
    "text",
    [
        "_wandb:\n    value:\n        cli_version: 1\nbenchmark:\n    value:\n        name: a\n",
        "defaults:\n  - benchmark: a\n  - method: b\n  - model: c\nseed: 0\n",
        "seed: 0\n",
        "",
    ],
)
def test_a_config_of_something_else_is_no_run(tmp_path, text):
    write_config(tmp_path / "wandb" / "files", text)
    write_config(tmp_path / "own")
    assert [status.directory.name for status in statuses(tmp_path)] == ["own"]


def test_a_report_says_what_it_leaves_out_and_shows_the_rest(tmp_path, make_run):
    make_run(tmp_path / "runs" / "good")
    for name, text in [("damaged", '{"schema": "ftp'), ("foreign", '{"accuracy": 1}')]:
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_text(text)
    (tmp_path / "runs" / "pipe").mkdir()
    os.mkfifo(tmp_path / "runs" / "pipe" / "result.json")
    (tmp_path / "runs" / "lost").symlink_to(tmp_path / "nowhere")
    paths = write_report([tmp_path / "runs"], tmp_path / "out")
    assert [result.path.parent.name for result in paths.results] == ["good"]
    page, text = paths.html.read_text(), paths.markdown.read_text()
    assert "Left out (4)" in page
    for name, reason in [
        ("damaged/result.json", "not valid JSON"),
        ("foreign/result.json", "the schema is None"),
        ("pipe/result.json", "not a regular file"),
        ("lost", "No such file or directory"),
    ]:
        assert any(
            str(left).startswith(str(tmp_path / "runs" / name)) and reason in str(left) for left in paths.left_out
        )
        assert f"- {name}: " in text and reason in text and reason in page
    with pytest.raises(ReportError, match="cannot be followed"):
        load_results([tmp_path / "runs"])


def test_where_nothing_can_be_read_the_first_file_is_named(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    with pytest.raises(ReportError, match=r"a/result\.json: the schema is None.* \(and 1 more"):
        find_results([tmp_path])


def test_pipes_in_a_run_directory_let_nobody_wait(tmp_path, make_run):
    make_run(tmp_path / "finished", tensors=["w"])
    write_config(tmp_path / "interrupted")
    (tmp_path / "finished" / "metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "finished" / "metrics.jsonl")
    for name in ("metrics.jsonl", "error.json", ".lock"):
        os.mkfifo(tmp_path / "interrupted" / name)
    assert [(status.state, status.latest) for status in statuses(tmp_path)] == [("failed", "unknown error")]
    write_report([tmp_path], tmp_path / "out")


def test_a_directory_whose_name_is_not_utf_8_is_shown_escaped(tmp_path, make_run):
    root = os.fsencode(tmp_path)
    make_run(tmp_path / "good", seed=0)
    for name in (b"run\xff", b"open\xff"):
        os.mkdir(root + b"/" + name)
    os.rename(root + b"/good", root + b"/run\xff/good")
    with open(root + b"/open\xff/config.yaml", "w") as file:
        file.write(CONFIG)
    page = write_report([tmp_path], tmp_path / "out", "svg").html.read_text()
    assert r"run\xff" in page and r"open\xff" in page
    with pytest.raises(ReportError) as error:
        load_results([tmp_path / printable("x") / "\udcff"])
    assert str(error.value).encode()


def test_numbers_that_are_none_in_the_events_do_not_stop_the_listing(tmp_path):
    directory = write_config(tmp_path / "run")
    huge = "1" + "0" * 400
    (directory / "metrics.jsonl").write_text(
        '{"event": "train", "experience": 1, "epoch": 0, "loss": 2.5}\n'
        f'{{"event": "train", "experience": 1, "epoch": 0, "loss": {huge}}}\n'
        f'{{"event": "eval", "experience": 0, "stream": "test", "accuracy": [{huge}, 0.5]}}\n[1]\n'
    )
    (status,) = statuses(tmp_path)
    assert status.latest == "experience 2, epoch 1: loss 2.5"
