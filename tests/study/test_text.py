"""Names are shown as they are, wherever: they steer no terminal, break no table, and compute nothing."""

import csv
import io

import pytest
from rich.console import Console

from ftp_cl.runs.text import latex_text, markdown_text, printable
from ftp_cl.study.aggregate import aggregate
from ftp_cl.study.loading import load_results
from ftp_cl.study.tables import csv_text, latex, summary_table, terminal_table
from ftp_cl.study.write import write_report


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("na\u00efve \u65e5\u672c \U0001f469\u200d\U0001f52c", "na\u00efve \u65e5\u672c \U0001f469\u200d\U0001f52c"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("a\nb\tc\u3000d", "a b c d"),
        ("\u202egpj", r"\u202egpj"),
        ("run\udcff", r"run\xff"),
        ("\ud83d", r"\ud83d"),
    ],
)
def test_only_what_steers_is_escaped(text, shown):
    assert printable(text) == shown
    assert shown.encode()


@pytest.mark.parametrize("mark", ["=", "+", "-", "@", "\t=", "\r=", "\uff1d"])
def test_a_spreadsheet_computes_no_name_and_reads_numbers_as_numbers(tmp_path, make_run, mark):
    make_run(tmp_path / "run", loss=-3, method=f"{mark}1+1", config={"label": f"{mark}HYPERLINK(1)"})
    (row,) = csv.DictReader(io.StringIO(csv_text(aggregate(load_results([tmp_path])))))
    first = mark.strip() or mark
    assert (row["label"], row["method"]) == (f"'{first}HYPERLINK(1)", f"'{first}1+1")
    assert row["average_forgetting_mean"].startswith("-") and float(row["average_forgetting_mean"]) < 0


@pytest.mark.parametrize("label", ["[2em] x", "*x"])
def test_a_latex_row_gives_the_one_before_no_argument(tmp_path, make_run, label):
    make_run(tmp_path / "run", config={"label": label})
    rows = latex(summary_table(aggregate(load_results([tmp_path])))).splitlines()
    assert rows[rows.index(r"\midrule") + 1].startswith(("{[}2em{]} x &", "{*}x &"))


def test_latex_and_markdown_escape_every_mark_of_theirs():
    assert latex_text("a`'|~^<>#") == (
        r"a\textasciigrave{}\textquotesingle{}\textbar{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\#"
    )
    assert markdown_text("`a` | [b](c) $d$ <i> &amp;") == r"\`a\` \| \[b\](c) \$d\$ &lt;i&gt; &amp;amp;"


def test_no_name_reaches_page_or_terminal_with_what_steers_it(tmp_path, make_run):
    evil = "\x1b]0;x\x07\u202e\ud800"
    make_run(tmp_path / "a", method="ftp", tensors=[evil], config={"x": {evil: [evil]}}, environment={evil: evil})
    make_run(tmp_path / f"b{evil[:-1]}", method="ftp", config={"x": {evil: 2}})
    (tmp_path / "c\x1b").mkdir()
    (tmp_path / "c\x1b" / "error.json").write_text('{"error": "\\u001b[31m \\ud800"}')
    paths = write_report([tmp_path], tmp_path / "out")
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal_table(paths.results, width=120))
    texts = [path.read_text(encoding="utf-8") for path in (paths.html, paths.markdown, paths.csv, paths.latex)]
    for text in (*texts, console.file.getvalue()):
        assert not set(evil) - set("]0;x") & set(text)
    assert r"\x1b[31m \ud800" in texts[0]
