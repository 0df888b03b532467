"""The HTML page of a report: one self-contained file with tables and figures, no network, no script."""

import base64
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ftp_cl.runs.status import LeftOut, RunStatus
from ftp_cl.runs.text import printable
from ftp_cl.study.aggregate import Group, by_benchmark, differing_settings
from ftp_cl.study.figures import MOST_DRAWN, all_figures
from ftp_cl.study.heatmap import matrix_svg
from ftp_cl.study.loading import Result
from ftp_cl.study.style import drawing, page_svg
from ftp_cl.study.tables import MEASURES, SummaryTable, named, summary_table


@dataclass(frozen=True)
class PageFigure:
    """A drawn figure as the template shows it; `svg` is markup that matplotlib has escaped."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """What the page shows of one benchmark.

    Attributes:
        matrix_width: least width of a heat map, in rem.
        examples: (what is shown, picture as a data URI) of the first run of each group.
        matrices: (label, heat map) of each group.
        settings: {configuration key: one value per group, None where unset}, the keys that differ.
        runs: (label, run, path as shown).
    """

    benchmark: str
    anchor: str
    matrix_width: float
    labels: list[str]
    table: SummaryTable
    figures: list[PageFigure]
    matrices: list[tuple[str, Markup]]
    examples: list[tuple[str, str]]
    settings: dict[str, list[str | None]]
    runs: list[tuple[str, Result, str]]


def render_page(
    groups: Sequence[Group], unfinished: Sequence[RunStatus], left_out: Sequence[LeftOut], run_root: str
) -> str:
    """The page as text.

    Args:
        groups: from `aggregate`, at least one.
        unfinished: runs without a result.
        left_out: what could not be read, relative to `run_root`.
        run_root: paths of runs are shown relative to it.
    """
    environment = Environment(
        loader=PackageLoader("ftp_cl.study"),
        autoescape=True,  # names come from result files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    with drawing():
        sections = [
            _section(benchmark, members, f"b{number}", run_root)
            for number, (benchmark, members) in enumerate(by_benchmark(groups).items(), start=1)
        ]
    runs = [result for group in groups for result in group.results]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        measures=MEASURES,
        most_drawn=MOST_DRAWN,
        run_count=len(runs),
        unfinished=[(run, _relative(run.directory, run_root)) for run in unfinished],
        left_out=[(printable(path), printable(reason)) for path, reason in left_out],
        environment=_environment(runs),
    )


def _section(benchmark: str, groups: list[Group], anchor: str, run_root: str) -> Section:
    metric = groups[0].results[0].metric
    figures = [
        PageFigure(
            named(kind.title, metric), named(kind.caption, metric), Markup(page_svg(figure, f"{anchor}-{kind.name}"))
        )
        for kind, figure in all_figures(groups)
    ]
    return Section(
        benchmark=benchmark,
        anchor=anchor,
        # Five experiences: two heat maps beside each other on a phone; many: one that fills it.
        matrix_width=min(
            32.0, max(10.5, 1.4 * max(group.results[0].accuracy_matrix.shape[1] for group in groups) + 3.5)
        ),
        labels=[group.label for group in groups],
        table=summary_table(groups),
        figures=figures,
        matrices=[(group.label, Markup(matrix_svg(group.mean_matrix()))) for group in groups[:MOST_DRAWN]],
        examples=[example for group in groups[:MOST_DRAWN] for example in _examples(group.label, group.results[0])],
        settings=differing_settings(group.settings for group in groups),
        runs=[(group.label, run, _relative(run.path.parent, run_root)) for group in groups for run in group.results],
    )


def _examples(label: str, run: Result) -> list[tuple[str, str]]:
    """The pictures of predictions that lie beside a result."""
    found = []
    for stream, example in run.examples.items():
        path = run.path.parent / "examples" / f"{stream}.png"
        if example.get("file") == f"examples/{stream}.png" and path.is_file():
            title = f"{label}, {stream}: {example.get('best')} (above), {example.get('worst')} (below)"
            found.append((title, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"))
    return found


def _breakable(text: str) -> Markup:
    """Escaped text that may break after the marks inside "method (optimizer.backbone_lr=1e-05)"."""
    return Markup(re.sub(r"([._=/])", r"\1<wbr>", str(escape(text))))


def _relative(path: Path, root: str) -> str:
    return printable(os.path.relpath(path, root))


def _environment(runs: Iterable[Result]) -> dict[str, list[str]]:
    """Versions and hardware: {key: distinct values over the runs}."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, value in run.environment.items():
            values.setdefault(key, {})[_shown(value)] = None
    return {key: list(distinct) for key, distinct in values.items()}


def _shown(value: Any) -> str:
    return "–" if value is None else printable(value)  # noqa: RUF001
