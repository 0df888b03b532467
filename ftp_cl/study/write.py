"""Writes reports and figures: everything is made first, then each file replaces its old version in one step."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ftp_cl.runs.files import replace_files
from ftp_cl.runs.status import STATES, LeftOut, statuses
from ftp_cl.runs.text import markdown_text
from ftp_cl.study.aggregate import Group, aggregate, by_benchmark
from ftp_cl.study.loading import ReportError, Result, find_results
from ftp_cl.study.tables import SummaryTable, csv_text, latex, markdown, summary_table

FIGURE_SUFFIXES = (".svg", ".png")


_LONGEST_NAME = 60  # characters of a benchmark's name in that of a figure's file; file systems take 255 bytes


@dataclass(frozen=True)
class ReportPaths:
    """The files of a written report, the results that it shows, and what it leaves out."""

    html: Path
    markdown: Path
    csv: Path
    latex: Path
    figures: list[Path]
    results: list[Result]
    left_out: list[LeftOut]


def write_report(
    dirs: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str], figures: str | None = None
) -> ReportPaths:
    """Make report.html, report.md, report.csv and report.tex of all results under some directories.

    The page lists the runs that have no result yet, too; page and Markdown list what cannot be read (`find_results`).

    The same results give byte-identical files. An existing report stays as it is until the new one is complete.

    Args:
        dirs: searched recursively for result.json.
        out: directory of the report; made if it does not exist.
        figures: "svg" or "png": each figure of the page as a file too, below figures/.

    Raises:
        ReportError: another kind of figure, no result that can be read, one that is doubled, or a file that cannot be
            written.
    """
    from ftp_cl.study.page import render_page  # matplotlib: not for those who want a table only

    places = [Path(place) for place in dirs]
    results, left_out = find_results(places)
    started = (run for place in places if place.is_dir() for run in statuses(place) if run.state != "finished")
    found = {run.directory.resolve(): run for run in started}  # each once
    unfinished = sorted(found.values(), key=lambda run: (STATES.index(run.state), run.directory))
    groups = aggregate(results)
    files = [*(result.path for result in results), *(path for path, _ in left_out)]
    shown = [path.parent for path in files] + [run.directory for run in unfinished]
    root = os.path.commonpath([os.path.abspath(directory) for directory in shown])
    lost = [LeftOut(Path(os.path.relpath(path, root)), reason) for path, reason in left_out]
    folder = Path(out)
    tables = {name: summary_table(members) for name, members in by_benchmark(groups).items()}
    latexes = [part for name, table in tables.items() for part in (f"% {name}", latex(table))]
    drawn = {} if figures is None else _figure_files(groups, folder / "figures", figures)
    written = {suffix: folder / f"report.{suffix}" for suffix in ("html", "md", "csv", "tex")}
    paths = ReportPaths(
        *(written["html"], written["md"], written["csv"], written["tex"]), list(drawn), results, left_out
    )
    _write(
        {
            paths.html: render_page(groups, unfinished, lost, root).encode(),
            paths.markdown: _markdown_report(tables, lost).encode(),
            paths.csv: csv_text(groups).encode(),
            paths.latex: "\n".join(["% \\usepackage{booktabs}", *latexes]).encode(),
            **drawn,
        }
    )
    return paths


def write_figure(results: Iterable[Result], path: str | os.PathLike[str]) -> Path:
    """Write the main figure: accuracy after each experience, and ID against OOD accuracy where there is any.

    Args:
        results: of one benchmark, from `load_results`.
        path: ends in .svg or .png.

    Raises:
        ReportError: another ending, results of several benchmarks, or a file that cannot be written.
    """
    from ftp_cl.study.figures import main_figure  # matplotlib
    from ftp_cl.study.style import drawing, file_bytes

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FIGURE_SUFFIXES:
        raise ReportError(f"{path}: a figure is written as {' or '.join(FIGURE_SUFFIXES)}")
    groups = aggregate(results)
    benchmarks = list(by_benchmark(groups))
    if len(benchmarks) != 1:
        raise ReportError(f"{path}: a figure shows one benchmark, but the results have {benchmarks or 'none'}")
    with drawing():
        content = file_bytes(main_figure(groups), suffix)
    _write({path: content})
    return path


def _figure_files(groups: list[Group], folder: Path, kind: str) -> dict[Path, bytes]:
    from ftp_cl.study.figures import all_figures  # matplotlib
    from ftp_cl.study.style import drawing, file_bytes

    if f".{kind}" not in FIGURE_SUFFIXES:
        raise ReportError(f"{kind}: a figure is written as {' or '.join(FIGURE_SUFFIXES)}")
    files = {}
    names = _file_names(by_benchmark(groups))
    with drawing():
        for benchmark, members in by_benchmark(groups).items():
            for shown, figure in all_figures(members):
                path = folder / f"{names[benchmark]}-{shown.name}.{kind}"
                files[path] = file_bytes(figure, path.suffix)
    return files


def _file_names(benchmarks: Iterable[str]) -> dict[str, str]:
    """For each benchmark a name of its own that every file system takes, also one that ignores upper case."""
    names: dict[str, str] = {}
    for benchmark in benchmarks:
        name = re.sub(r"[^\w-]+", "_", benchmark)[:_LONGEST_NAME]
        taken = {other.casefold() for other in names.values()}
        names[benchmark] = next(
            numbered for i in count(1) if (numbered := name if i == 1 else f"{name}-{i}").casefold() not in taken
        )
    return names


def _markdown_report(tables: Mapping[str, SummaryTable], lost: list[LeftOut]) -> str:
    parts = ["# Report\n"]
    for benchmark, table in tables.items():
        parts += [f"## {markdown_text(benchmark)}\n", markdown(table)]
    if lost:
        parts += ["## Left out\n", *(f"- {markdown_text(str(found))}" for found in lost), ""]
    return "\n".join(parts)


def _write(contents: Mapping[Path, bytes]) -> None:
    try:
        replace_files(contents)
    except OSError as error:
        raise ReportError(f"{error.filename}: cannot be written ({error.strerror})") from None
