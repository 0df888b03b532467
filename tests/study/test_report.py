"""The written report: complete, self-contained, the same bytes for the same results, never half written."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ftp_cl.runs.files import replace_files
from ftp_cl.study.loading import ReportError
from ftp_cl.study.write import write_report

CONFIG = "seed: 0\nmodel:\n  name: small_cnn\nmethod:\n  k: 0\n  name: ftp\nbenchmark:\n  name: split_digits\n"

VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Structure(HTMLParser):
    """Checks that tags nest; collects ids, tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.tags, self.text = [], [], set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(path: Path) -> Structure:
    structure = Structure()
    structure.feed(path.read_text(encoding="utf-8"))
    structure.close()
    assert structure.open == []
    return structure


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_report_has_all_figures_of_runs_with_ood_and_projection(report):
    text = parse(report.html).text
    for title in (
        *("Accuracy after each experience", "Forgetting per experience", "OOD accuracy per stream"),
        *("In-distribution against out-of-distribution", "Radius and distance", "Radius over experiences"),
        "Radius and distance of each layer over experiences",
        *("Accuracy matrices", "Runs (9)", "Versions and hardware", "95 % confidence interval"),
    ):
        assert title in text
    for axis in ("training experience", "average accuracy so far (%)", "forgetting (percentage points)", "OOD stream"):
        assert axis in text
    assert "ftp" in report.markdown.read_text()
    assert report.csv.read_text().count("\n") == 4
    assert set(contents(report.html.parent)) == {"report.html", "report.md", "report.csv", "report.tex"}


def test_page_needs_no_network_and_no_script_and_its_ids_are_unique(report):
    page, parsed = report.html.read_text(), parse(report.html)
    assert not {"script", "link", "img", "iframe"} & parsed.tags
    assert not re.search(r"url\((?!#)|@import|src=|data:", page)
    assert "prefers-color-scheme: dark" in page
    assert len(parsed.ids) == len(set(parsed.ids))


def test_colours_of_figures_follow_the_page(report):
    figures = "".join(re.findall(r"<svg.*?</svg>", report.html.read_text(), re.DOTALL))
    for fixed in ("#1b1b1d", "#dcdcdf", "#fefefe", "#ffffff", "black"):
        assert fixed not in figures
    assert "currentColor" in figures


def test_the_same_results_give_the_same_bytes_wherever_they_lie(report, runs, tmp_path):
    write_report([runs], tmp_path / "out")
    assert contents(tmp_path / "out") == contents(report.html.parent)


def test_names_from_result_files_cannot_inject_markup(tmp_path, make_run):
    evil = "</td><script>alert(1)</script>&amp; $x^{$ é 日本"
    make_run(tmp_path / "run", method=evil, benchmark=evil, ood=(f"ood_{evil}",), tensors=[evil], config={evil: evil})
    make_run(tmp_path / "other", method=evil, benchmark=evil, config={evil: 2})
    structure = parse(write_report([tmp_path], tmp_path / "out").html)
    assert "script" not in structure.tags
    assert "alert(1)</script>&amp; $x^{$ é 日本" in structure.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"experiences": 1, "ood": ()},
        {"experiences": 1, "tensors": ["a.weight"]},
        {"experiences": 2, "ood": ()},
        {"experiences": 12, "ood": tuple(f"ood_{name}_{i}" for name in ("fog", "snow") for i in range(5))},
        {"tensors": [f"layers.{i}.weight" for i in range(120)]},
        {"train_seconds": 0.0, "step_seconds_median": None, "peak_memory_mb": None, "environment": {}},
    ],
)
def test_reports_of_unusual_runs(tmp_path, make_run, arguments):
    for seed in range(2):
        make_run(tmp_path / str(seed), seed=seed, **arguments)
    parse(write_report([tmp_path], tmp_path / "out").html)


def test_very_many_streams_and_rows_are_drawn_in_part_and_the_page_says_so(tmp_path, make_run, monkeypatch):
    monkeypatch.setattr("ftp_cl.study.page.MOST_DRAWN", 1)
    monkeypatch.setattr("ftp_cl.study.ood_figures.MOST_STREAMS", 2)
    for rate in range(2):
        make_run(tmp_path / str(rate), config={"lr": rate})
    text = parse(write_report([tmp_path], tmp_path / "out").html).text
    assert "show the first 1 of these 2 rows" in text and "blob" in text and "line_art" not in text


def test_a_report_goes_where_a_notebook_has_set_its_own_backend(tmp_path, make_run):
    make_run(tmp_path / "runs", experiences=1, ood=())
    command = [sys.executable, "-m", "ftp_cl.cli", "report", "runs"]
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_zero_radius_and_distance_are_drawn_on_the_logarithmic_axis(tmp_path, make_run):
    projection = {"w": {"radius": 1e-8, "mean_distance": 0.0, "max_distance": 0.0, "boundary_share": 0.0}}
    make_run(tmp_path, projection=projection)
    assert "1e-08" in parse(write_report([tmp_path], tmp_path / "out").html).text


def test_runs_with_and_without_ood_share_a_report(tmp_path, make_run):
    make_run(tmp_path / "a", seed=0)
    make_run(tmp_path / "b", seed=1, ood=("ood_blob",))
    make_run(tmp_path / "c", seed=2, ood=())
    make_run(tmp_path / "d", method="ewc", ood=())
    parse(write_report([tmp_path], tmp_path / "out").html)


def test_runs_without_a_result_are_listed_with_their_state(report, make_run, tmp_path):
    assert "Without a result" not in report.html.read_text()
    runs = make_run(tmp_path / "runs" / "finished", experiences=1, ood=()).parent
    for name in ("running", "failed", "interrupted"):
        (runs / name).mkdir()
        (runs / name / "config.yaml").write_text(CONFIG)
    event = {"event": "eval", "experience": 2, "stream": "test", "accuracy": [70, 60, 50]}
    (runs / "running" / "metrics.jsonl").write_text(json.dumps(event) + '\n{"event": "tra')
    (runs / "failed" / "error.json").write_text('{"error": "<b>the disk</b> is full"}')
    with (runs / "running" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = " ".join(parse(write_report([runs, runs / "failed"], tmp_path / "out").html).text.split())
    assert "Without a result (3)" in text
    for row in (
        "runningrunningexperience 3: 60.0 % on test",
        "failedfailed<b>the disk</b> is full",
        "interruptedinterrupted",
    ):
        assert row in text


def test_no_result_writes_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(ReportError, match="no result"):
        write_report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_an_existing_report_stays_if_writing_fails(report, make_run, tmp_path, monkeypatch, failing):
    out = shutil.copytree(report.html.parent, tmp_path / "out")
    before = contents(out)
    runs = make_run(tmp_path / "runs", experiences=1, ood=())

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*(("os.fsync", fail) if failing == "write" else (Path, "replace", fail)))
    with pytest.raises(ReportError, match="cannot be written"):
        write_report([runs], out)
    assert contents(out) == before


def test_a_target_that_is_a_directory_leaves_the_others_as_they_are(make_run, tmp_path):
    (tmp_path / "out" / "report.tex").mkdir(parents=True)
    (tmp_path / "out" / "report.md").write_text("before")
    with pytest.raises(ReportError, match=r"report\.tex: cannot be written"):
        write_report([make_run(tmp_path / "runs", experiences=1, ood=())], tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text() == "before"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.tex"}


def test_a_file_system_that_cannot_sync_directories_has_the_file_all_the_same(tmp_path, monkeypatch):
    sync = os.fsync

    def refuse_directories(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", refuse_directories)
    replace_files({tmp_path / "a": b"1"})
    assert (tmp_path / "a").read_bytes() == b"1"


def test_a_directory_that_cannot_be_made_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot be written"):
        write_report([make_run(tmp_path / "runs", experiences=1, ood=())], tmp_path / "file" / "out")


@pytest.mark.slow
def test_two_hundred_results_take_less_than_ten_seconds(tmp_path, make_run):
    tensors = [f"blocks.{i}.weight" for i in range(60)]
    for setting in range(40):
        for seed in range(5):
            make_run(
                tmp_path / f"{setting}-{seed}",
                method=("naive", "ftp")[setting % 2],
                seed=seed,
                experiences=10,
                loss=1 + setting / 8,
                config={"lr": setting},
                tensors=tensors if setting % 2 else None,
            )
    start = time.process_time()
    write_report([tmp_path], tmp_path / "out")
    assert time.process_time() - start < 10


class Widths(HTMLParser):
    """Collects what may be wider than a phone, each with the tags and classes that it lies in."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.wide = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open += [{tag, *dict(attrs).get("class", "").split()}]
        if tag in ("table", "svg", "img"):
            self.wide.append((tag, dict(attrs), set().union(*self.open)))

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if max(map(len, data.split()), default=0) > 40:
            self.wide.append(("word", data, set().union(*self.open)))


def test_nothing_can_stick_out_of_the_page(runs, tmp_path, make_run):
    """Tables scroll, drawings take the width that there is, and long words break."""
    name = "a_very_long_method_name_without_any_place_to_break_it_" * 2
    name_without_marks = "averylongmethodnamewithoutanyplacetobreakit" * 2
    make_run(runs / "long", method=name, config={"label": name})
    make_run(runs / "longer", method=name_without_marks, config={"label": name_without_marks})
    page = write_report([runs], tmp_path / "out").html.read_text(encoding="utf-8")
    found = Widths()
    found.feed(page)
    assert sum(tag == "svg" for tag, _, _ in found.wide) == 8 + 5
    assert {tag for tag, _, _ in found.wide} >= {"table", "svg", "word"}
    for tag, what, inside in found.wide:
        if tag == "table":
            assert "scroll" in inside
        elif tag in ("svg", "img"):
            assert "figure" in inside and "width" not in what
        else:
            assert inside & {"scroll", "h1", "h2", "h3", "h4", "figcaption", "style", "svg"}, what
    for rule in (
        r"\.scroll \{[^}]*overflow-x: auto",
        r"figure svg \{[^}]*width: 100%",
        r"figure \{[^}]*min-width: 0",
        r"h1, h2, h3, figcaption, th, td \{ overflow-wrap: break-word",
        r"figure h4 \{[^}]*overflow-wrap: anywhere",
    ):
        assert re.search(rule, page)
