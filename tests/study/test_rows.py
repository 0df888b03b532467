"""What is read from the Parquet files of a plan."""

import os
import random
from pathlib import Path

import polars as pl
import pytest

from ftp_cl.runs.files import replace_files
from ftp_cl.study.loading import find_results
from ftp_cl.study.plan_tables import differences
from ftp_cl.study.rows import frame_of_runs, read_frame, runs_of_frame
from ftp_cl.study.store import Store

RUN = {"setting": "s", "row": "r", "seed": 0, "average_accuracy": 50.0, "config": {"seed": 0}, "ood": {}}
TEXT = pl.String()


def test_what_was_written_is_read(tmp_path):
    frame_of_runs([RUN]).write_parquet(tmp_path / "runs.parquet")
    (found,) = runs_of_frame(read_frame(tmp_path / "runs.parquet"))
    assert {key: found[key] for key in RUN} == RUN


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
