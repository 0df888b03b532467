"""The Parquet files of a plan: what is added, dropped, merged and read, and what is refused."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ftp_cl.runs.files import replace_files
from ftp_cl.study.loading import find_results, load_results
from ftp_cl.study.plan_tables import differences
from ftp_cl.study.store import Store, frame_of_runs, read_frame, runs_of_frame

RUN = {"setting": "s", "row": "r", "seed": 0, "average_accuracy": 50.0, "config": {"seed": 0}, "ood": {}}
TEXT = pl.String()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda frame: frame.drop("row"), "its column row must be String, but is missing"),
        (lambda frame: frame.with_columns(pl.col("seed").cast(TEXT)), "its column seed must be Int64, but is String"),
        (lambda frame: frame.with_columns(setting=pl.lit(None, TEXT)), "a row without setting"),
        (lambda frame: frame.with_columns(config=pl.lit("{bad")), "its column 'config' holds something else than JSON"),
        (lambda frame: frame.with_columns(config=pl.lit("[" * 9999)), "'config' holds something else than JSON"),
        (lambda frame: frame.with_columns(extra=pl.lit(3)), "its column 'extra' holds something else than JSON"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, change, sentence):
    path = tmp_path / "runs.parquet"
    change(frame_of_runs([RUN])).write_parquet(path)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_frame(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_damaged_bytes_are_refused_or_read(tmp_path):
    path, random_bytes = tmp_path / "runs.parquet", random.Random(0)
    frame_of_runs([RUN, {**RUN, "seed": 1}]).write_parquet(path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(random_bytes.choice([1, 4, 30])):
            damaged[random_bytes.randrange(len(damaged))] = random_bytes.randrange(256)
        replace_files({path: bytes(damaged)})
        try:
            runs_of_frame(read_frame(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 100


def test_a_pipe_is_not_waited_for_and_the_report_is_of_the_rest(tmp_path, make_run):
    os.mkfifo(tmp_path / "runs.parquet")
    with pytest.raises(ValueError, match=r"runs\.parquet: cannot be read \(not a regular file"):
        read_frame(tmp_path / "runs.parquet")
    make_run(tmp_path / "run")
    results, left_out = find_results([tmp_path])
    assert len(results) == 1
    assert [str(found) for found in left_out] == [f"{tmp_path}/runs.parquet: cannot be read (not a regular file)"]


def test_differences_name_rows_so_that_no_terminal_or_spreadsheet_obeys(tmp_path):
    store = Store(tmp_path)
    for seed in range(3):
        for row, accuracy in [("=1+1", 50.0 + seed), ("red\x1b[31m", 40.0)]:
            store.add_run("s", row, {"seed": seed, "average_accuracy": accuracy})
    text = differences(store)
    assert ",'=1+1," in text and r"red\x1b[31m" in text and "\x1b" not in text


@pytest.mark.parametrize("there", ["file", "pipe", "dangling"])
def test_a_file_that_cannot_be_written_is_named_itself(tmp_path, there):
    {"file": Path.touch, "pipe": os.mkfifo, "dangling": lambda path: path.symlink_to("nowhere")}[there](
        tmp_path / there
    )
    with pytest.raises(OSError) as caught:
        replace_files({tmp_path / there / "runs.parquet": b""})
    assert caught.value.filename == str(tmp_path / there / "runs.parquet")


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    (tmp_path / ".runs.parquet.123.tmp").touch()
    (tmp_path / ".README.md.123.tmp").touch()  # somebody else may be writing it now
    Store(tmp_path).add_run("s", "r", {"seed": 0})
    assert {path.name for path in tmp_path.iterdir()} == {".README.md.123.tmp", ".lock", "runs.parquet"}


def test_a_row_comes_back_as_it_was_and_repeats_a_run(ftp_cl, refused, tmp_path, row_content):
    content = {
        **row_content(3, 50.0, {"seed": 3, "label": "a | b"}),
        "data": {"sizes": [1, 2]},
        "newer": {"key": [None, 1]},
    }
    Store(tmp_path).add_run("robust", "ftp", content)
    export = ("results", "export", ".", "--setting", "robust", "--seed", "3", "--row")
    assert json.loads(ftp_cl(*export, "ftp")[1]) == {**content, "projection": {}}
    assert "has no row ft; did you mean ftp?" in refused(*export, "ft")


def test_dropped_rows_run_again_and_nothing_else(ftp_cl, refused, tmp_path, row_content):
    results = Store(tmp_path)
    for setting, row in (("robust", "ftp"), ("robust", "naive"), ("shots_2", "ftp")):
        results.add_run(setting, row, row_content(0, 50.0))
        results.add_tuning(setting, row, ["method=x"], row_content(100, 50.0))
    assert ftp_cl("results", "drop", ".", "--setting", "robust", "--row", "ftp")[1].startswith("2 runs removed")
    kept = {("robust", "naive"), ("shots_2", "ftp")}
    assert {(run["setting"], run["row"]) for run in results.runs()} == kept
    assert {(run["setting"], run["row"]) for run in results.tuning()} == kept
    assert "needs --setting, --row or both" in refused("results", "drop", ".")


def test_merge_joins_what_several_machines_ran_and_refuses_other_numbers(ftp_cl, refused, tmp_path, row_content):
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    here.add_run("robust", "ftp", row_content(0, 50.0))
    there.add_run("robust", "ftp", row_content(0, 50.0))
    there.add_run("robust", "ftp", {**row_content(1, 60.0), "newer": 1})
    there.add_tuning("robust", "ftp", ["a=1"], row_content(100, 55.0))
    merge = ("results", "merge", "here")
    assert ftp_cl(*merge, "there")[1].startswith("2 runs added")
    assert [run["average_accuracy"] for run in here.runs()] == [50.0, 60.0] and len(here.tuning()) == 1
    there.add_run("robust", "ftp", row_content(1, 61.0))
    assert "other numbers for ftp in robust, seed 1" in refused(*merge, "there")
    assert [run["average_accuracy"] for run in here.runs()] == [50.0, 60.0]
    assert "nowhere has no results of a plan" in refused(*merge, "nowhere")


def test_every_two_rows_have_their_paired_difference(tmp_path, row_content):
    results = Store(tmp_path)
    for seed, (naive, ncm) in enumerate([(50.0, 40.0), (60.0, 52.0), (55.0, 46.0), (55.0, None)]):
        results.add_run("shots_2", "naive", row_content(seed, naive))
        if ncm is not None:
            results.add_run("shots_2", "ncm", row_content(seed, ncm))
    lines = differences(results).splitlines()
    assert lines[0] == "setting,row,reference,measure,difference,low,high,n"
    assert "shots_2,naive,ncm,average_accuracy,9.00,6.52,11.48,3" in lines  # 9 -+ 4.303 / sqrt(3)


ADD_TEN = """
import json, sys
from pathlib import Path
from ftp_cl.study.store import Store
for seed in range(10):
    Store(Path(sys.argv[1])).add_run("robust", sys.argv[2], {**json.loads(sys.argv[3]), "seed": seed})
"""


def test_processes_that_add_at_once_lose_nothing(tmp_path, row_content):
    command = [sys.executable, "-c", ADD_TEN, str(tmp_path)]
    workers = [subprocess.Popen([*command, row, json.dumps(row_content(0, 50.0))]) for row in ("ftp", "naive")]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert [(run["row"], run["seed"]) for run in Store(tmp_path).runs()] == [
        (row, seed) for row in ("ftp", "naive") for seed in range(10)
    ]


def test_a_damaged_file_is_named(refused, tmp_path):
    (tmp_path / "runs.parquet").write_bytes(b"PAR1 half a file")
    assert "runs.parquet: damaged" in refused("results", "differences", ".")


def test_reports_read_rows_and_run_directories_together(tmp_path, row_content):
    Store(tmp_path / "plan").add_run("robust", "ftp", row_content(0, 50.0, {"label": "ftp"}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({**row_content(0, 60.0), "projection": {}}))
    found = {run.benchmark: run.average_accuracy for run in load_results([tmp_path])}
    assert found == {"any, robust": 50.0, "any": 60.0}
