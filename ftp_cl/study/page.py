"""The HTML page of a report: one self-contained file with tables and figures, no network, no script."""

import base64
import os
import re
from collections.abc import Iterable, Sequence
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
from ftp_cl.study.tables import MEASURES, named, summary_table


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
    # Escaped text that may break after the marks inside "method (optimizer.backbone_lr=1e-05)".
    environment.filters["breakable"] = lambda text: Markup(re.sub(r"([._=/])", r"\1<wbr>", str(escape(text))))
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


def _section(benchmark: str, groups: list[Group], anchor: str, run_root: str) -> dict[str, Any]:
    """What the page shows of one benchmark; lists have an entry a group, but for figures."""
    shown, metric = groups[:MOST_DRAWN], groups[0].results[0].metric
    return {
        "benchmark": benchmark,
        "anchor": anchor,
        # In rem. Five experiences: two heat maps beside each other on a phone; many: one that fills it.
        "matrix_width": min(32.0, max(10.5, 1.4 * max(g.results[0].accuracy_matrix.shape[1] for g in groups) + 3.5)),
        "accuracy": named("Accuracy", metric),
        "labels": [group.label for group in groups],
        "table": summary_table(groups),
        # Matplotlib has escaped the text in its drawings.
        "figures": [
            (named(kind.title, metric), named(kind.caption, metric), Markup(page_svg(figure, f"{anchor}-{kind.name}")))
            for kind, figure in all_figures(groups)
        ],
        "matrices": [(group.label, Markup(matrix_svg(group.mean_matrix()))) for group in shown],
        "examples": [example for group in shown for example in _examples(group.label, group.results[0])],
        "settings": differing_settings(group.settings for group in groups),
        "runs": [(group.label, run, _relative(run.path.parent, run_root)) for group in groups for run in group.results],
    }


def _examples(label: str, run: Result) -> list[tuple[str, str]]:
    """The pictures of predictions that lie beside a result."""
    found = []
    for stream, example in run.examples.items():
        path = run.path.parent / "examples" / f"{stream}.png"
        if example.get("file") == f"examples/{stream}.png" and path.is_file():
            title = f"{label}, {stream}: {example.get('best')} (above), {example.get('worst')} (below)"
            found.append((title, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"))
    return found


def _relative(path: Path, root: str) -> str:
    return printable(os.path.relpath(path, root))


def _environment(runs: Iterable[Result]) -> dict[str, list[str]]:
    """Versions and hardware: {key: distinct values over the runs}."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for key, value in run.environment.items():
            shown = "–" if value is None else printable(value)  # noqa: RUF001
            values.setdefault(key, {})[shown] = None
    return {key: list(distinct) for key, distinct in values.items()}
