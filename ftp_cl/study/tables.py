"""The summary table of a benchmark: columns, cells, what is bold, and its forms (Markdown, LaTeX, CSV, terminal)."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ftp_cl.metrics import mean_corruption_error
from ftp_cl.runs.text import csv_cell, latex_text, markdown_text
from ftp_cl.study.aggregate import DIVERGED, DIVERGED_NOTE, Group, aggregate, by_benchmark
from ftp_cl.study.loading import Result
from ftp_cl.study.significance import RULE, difference_holds, is_behind

if TYPE_CHECKING:
    from rich.table import Table

_NAMES = {"mean_iou": "mean IoU", "within_11.25": "share within 11.25°"}
_MEANINGS = {
    "mean_iou": "Mean IoU is that of the classes of an experience on all its test images; higher is better.",
    "within_11.25": "The share of normals within 11.25 degrees of the true ones; higher is better.",
}

MISSING = "–"  # noqa: RUF001 (an en dash, as tables use it)


@dataclass(frozen=True)
class Measure:
    """One column of the table: how it is called, read from a run, and written.

    Attributes:
        key: name of the column in the CSV file.
        title: head of the column, with its unit.
        read: the number of one run; None where it does not exist.
        digits: decimals.
        main: shown in a narrow terminal too.
        is_time: depends on the machine, so it is compared on one kind of machine only.
        note: what belongs beneath a table that has numbers of it.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    read: Callable[[Result], float | None]
    digits: int = 1
    main: bool = False
    is_time: bool = False
    note: str = ""


_FORGETTING = "Forgetting (pp, percentage points) is maximum-based (Chaudhry et al., 2018)."
_ROBUSTNESS = "OOD / ID divides the mean over the OOD streams by that on the same classes of the test stream."


def _step_milliseconds(result: Result) -> float | None:
    return None if result.step_seconds_median is None else 1000 * result.step_seconds_median


MEASURES = (
    Measure("average_accuracy", "average accuracy (%)", "higher", lambda run: run.average_accuracy, main=True),
    Measure("ood_average", "OOD average (%)", "higher", lambda run: run.ood_average, main=True),
    Measure(
        "average_forgetting",
        "forgetting (pp)",
        "lower",
        lambda run: run.average_forgetting,
        main=True,
        note=_FORGETTING,
    ),
    Measure("backward_transfer", "backward transfer (pp)", "higher", lambda run: run.backward_transfer),
    Measure("learning_accuracy", "learning accuracy (%)", "higher", lambda run: run.learning_accuracy),
    Measure(
        "relative_robustness",
        "relative robustness (OOD / ID)",
        "higher",
        lambda run: run.relative_robustness,
        digits=2,
        note=_ROBUSTNESS,
    ),
    Measure("train_seconds", "train time (s)", "lower", lambda run: run.train_seconds, main=True, is_time=True),
    Measure("step_milliseconds", "step (ms)", "lower", _step_milliseconds, is_time=True),
)


def named(text: str, metric: str) -> str:
    """Return a text about accuracy with what a run measured in its place: mean IoU, for instance."""
    if metric not in _NAMES:
        return text
    found = re.sub(r"(?i)((average|mean) )?accuracy|(?<=OOD )average", _NAMES[metric], text)
    return found[0].upper() + found[1:] if text[0].isupper() else found


@dataclass(frozen=True)
class Cell:
    """One value of the table as text; `best` if it leads its column and the lead holds."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class SummaryTable:
    """One row per group, one cell per measure, and the sentences that belong beneath.

    Attributes:
        titles: of the columns, in the order of `MEASURES`; after them the mean corruption error, where there is one.
        rows: (label, cells in the same order, number of runs).
    """

    titles: tuple[str, ...]
    rows: list[tuple[str, list[Cell], int]]
    notes: list[str]


def summary_table(groups: Sequence[Group]) -> SummaryTable:
    """The table of the groups of one benchmark, all of one metric."""
    environments = [run.environment for group in groups for run in group.results]
    machines = {tuple(str(own.get(key)) for key in ("platform", "cpu", "threads")) for own in environments}
    same_machine = len(machines) == 1
    measures = [*MEASURES, *_relative_to_naive(groups)]
    columns = []
    for measure in measures:
        best = _leader(groups, measure) if same_machine or not measure.is_time else None
        columns.append([Cell(_cell_text(group, measure), group is best) for group in groups])
    cells = zip(*columns, strict=True)
    rows = [(group.marked_label, list(own), len(group.results)) for group, own in zip(groups, cells, strict=True)]
    metric = groups[0].results[0].metric
    with_numbers = [
        measure
        for measure, column in zip(measures, columns, strict=True)
        if any(cell.text != MISSING for cell in column)
    ]
    notes = [named(note, metric) for note in _notes(groups, with_numbers, same_machine)]
    return SummaryTable(tuple(named(measure.title, metric) for measure in measures), rows, notes)


def _relative_to_naive(groups: Sequence[Group]) -> list[Measure]:
    """The mean corruption error, where plain fine-tuning was evaluated on corruptions: the best of it is 100."""
    naive = next((group for group in groups if group.method == "naive" and group.results[0].corruptions), None)
    if naive is None:
        return []
    wanted = sorted(naive.results[0].corruptions.values())
    of_runs = [_by_corruption(run) for run in naive.results if sorted(run.corruptions.values()) == wanted]
    reference = {name: np.mean([run[name] for run in of_runs], axis=0).tolist() for name in of_runs[0]}
    is_perfect = any(min(values) >= 100 for values in reference.values())

    def read(run: Result) -> float | None:
        if is_perfect or sorted(run.corruptions.values()) != wanted:
            return None
        return mean_corruption_error(_by_corruption(run), reference)

    return [Measure("mean_corruption_error", f"mean corruption error (%), {naive.label} = 100", "lower", read)]


def _by_corruption(run: Result) -> dict[str, list[float]]:
    """The accuracies on each corruption, by severity."""
    found: dict[str, list[float]] = {}
    for stream, (corruption, _) in sorted(run.corruptions.items(), key=lambda item: item[1]):
        found.setdefault(corruption, []).append(run.ood[stream])
    return found


def markdown(table: SummaryTable) -> str:
    """The table and its notes as Markdown."""
    heads = ["method", *table.titles, "n"]
    lines = [markdown_row(heads), markdown_row(["---", *("---:" for _ in heads[1:])])]
    for label, cells, n in table.rows:
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(markdown_row([markdown_text(label), *texts, str(n)]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"


def latex(table: SummaryTable) -> str:
    """The table as LaTeX, for the package booktabs; its notes as comments."""
    heads = [latex_text(head) for head in ("method", *table.titles, "n")]
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", "\\toprule", _latex_row(heads), "\\midrule"]
    for label, cells, n in table.rows:
        texts = [latex_text(cell.text) for cell in cells]
        shown = [f"\\textbf{{{text}}}" if cell.best else text for cell, text in zip(cells, texts, strict=True)]
        lines.append(_latex_row([latex_text(label), *shown, str(n)]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in table.notes)]) + "\n"


def csv_text(groups: Iterable[Group]) -> str:
    """All groups as CSV: a mean, a standard deviation and a number of runs per measure, unrounded; empty if missing."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    heads = [f"{measure.key}_{part}" for measure in MEASURES for part in ("mean", "std", "n")]
    writer.writerow(["benchmark", "label", "method", "model", "n", *heads])
    for group in groups:
        names = map(csv_cell, (group.benchmark, group.marked_label, group.method, group.model))
        row: list[object] = [*names, len(group.results)]
        for measure in MEASURES:
            spread = group.spread(measure.read)
            row += [None, None, 0] if spread is None else [spread.mean, spread.std, spread.n]
        writer.writerow(row)
    return buffer.getvalue()


def terminal_table(results: Iterable[Result], width: int | None = None) -> "Table":
    """The summary tables of all benchmarks as one table for the terminal (`rich.print` shows it).

    Args:
        results: from `load_results`.
        width: characters in a line; default: what the terminal has. If not all columns fit, the main ones are shown.

    Raises:
        ReportError: as `aggregate`.
    """
    from rich.console import Console
    from rich.measure import Measurement

    tables = {name: summary_table(groups) for name, groups in by_benchmark(aggregate(results)).items()}
    console = Console(width=width)
    whole = _rich_table(tables, MEASURES)
    # Measured as if the line had no end: the full width of its longest cells.
    needed = Measurement.get(console, console.options.update(width=10_000), whole).maximum
    return whole if needed <= console.width else _rich_table(tables, [measure for measure in MEASURES if measure.main])


def _rich_table(tables: Mapping[str, SummaryTable], measures: Sequence[Measure]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(box=box.SIMPLE, padding=(0, 1))
    rich_table.add_column("method", overflow="fold")
    titles = {table.titles[: len(MEASURES)] for table in tables.values()}
    for measure in measures:
        title = titles.copy().pop()[MEASURES.index(measure)] if len(titles) == 1 else measure.title
        rich_table.add_column(re.sub(r" (?![^(]*\))", "\n", title), justify="right", no_wrap=True)
    rich_table.add_column("n", justify="right", no_wrap=True)
    for benchmark, table in tables.items():
        # Text, not str: names from result files must not be read as markup.
        rich_table.add_row(Text(benchmark, style="italic"))
        for label, cells, n in table.rows:
            shown = [cells[MEASURES.index(measure)] for measure in measures]
            texts = [Text(cell.text, style="bold" if cell.best else "") for cell in shown]
            rich_table.add_row(Text(f"  {label}"), *texts, str(n))
        rich_table.add_section()
    hidden = {measure.note for measure in MEASURES if measure not in measures}
    notes = dict.fromkeys(note for table in tables.values() for note in table.notes if note not in hidden)
    rich_table.caption = Text("\n".join(notes))
    rich_table.caption_justify = "left"
    return rich_table


def _leader(groups: Sequence[Group], measure: Measure) -> Group | None:
    """The group with the best mean, if its lead over the second best holds, and nobody is ahead on common seeds."""
    sign = 1 if measure.better == "higher" else -1
    found = [(group, {seed: sign * value for seed, value in group.by_seed(measure.read).items()}) for group in groups]
    ranked = sorted((entry for entry in found if entry[1]), key=lambda entry: -np.mean(list(entry[1].values())))
    if len(ranked) < 2:
        return None
    (leader, values), (_, second), *_ = ranked
    holds = difference_holds(values, second) and not any(is_behind(values, others) for _, others in ranked[1:])
    return leader if holds else None


def _cell_text(group: Group, measure: Measure) -> str:
    if (spread := group.spread(measure.read)) is None:
        return MISSING
    text = spread.text(measure.digits)
    return text if spread.n == len(group.results) else f"{text} (n = {spread.n})"


def _notes(groups: Sequence[Group], with_numbers: Sequence[Measure], same_machine: bool) -> list[str]:
    notes = []
    if any(len(group.results) > 1 for group in groups):
        notes.append("Mean ± standard deviation (n - 1 in the denominator) over n seeds.")
        notes += [RULE] if len(groups) > 1 else []
    notes += [measure.note for measure in with_numbers if measure.note]
    if (metric := groups[0].results[0].metric) in _MEANINGS:
        notes.append(_MEANINGS[metric])
    if any(len(group.results) == 1 for group in groups):
        notes.append("One seed shows no spread: a row with n = 1 has no ± and nothing in it is bold.")
    if any(group.marked_label != group.label for group in groups):
        notes.append(f"{DIVERGED} {DIVERGED_NOTE}")
    if not same_machine:
        notes.append("The runs come from different machines, so their times are not comparable and never bold.")
    return notes


def _latex_row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def markdown_row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
