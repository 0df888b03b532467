"""The tables of a comparison, from its results alone."""

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ftp_cl.runs.catalogue import experiment_description
from ftp_cl.runs.files import replace_files
from ftp_cl.runs.records import RUNS_FILE
from ftp_cl.runs.text import csv_cell, printable
from ftp_cl.study.aggregate import DIVERGED, DIVERGED_NOTE, Spread
from ftp_cl.study.compare import chosen, trial_means
from ftp_cl.study.plan import ComparedMethod, Plan
from ftp_cl.study.significance import FEWEST_SEEDS, paired, paired_interval
from ftp_cl.study.store import Store
from ftp_cl.study.tables import markdown_row, named

_MEASURES = {"accuracy": "average_accuracy", "OOD": "ood_average", "forgetting": "average_forgetting"}

_NOTES = (
    "Mean ± standard deviation over n seeds, percent; forgetting in points. Differences (Δ): method minus reference on "
    "the seeds that both have, with the 95 % confidence interval of their mean (Student's t); **bold** where it "
    "excludes 0. Training time is the median, on one thread, other runs beside it; memory is the largest of the whole "
    "process, with Python, torch and the images. `ftp-cl results differences` gives the difference of any two methods."
)


def write_tables(plan: Plan, results: Store) -> Path:
    """Write README.md (all tables) and the plan's figures from what is in `results`.

    Returns:
        The path of README.md.

    Raises:
        ConfigError, ReportError: a result is damaged.
    """
    made = f"Made by `ftp-cl compare --plan {printable(plan.name)}`"
    parts = ["# Results\n", f"{made}. How methods are tuned and seeds chosen: docs/protocol.md.\n"]
    runs = _runs_of(plan, results)
    tuning = results.tuning()
    found = [setting for setting in plan.settings if setting in runs["setting"]]
    if plan.tuned_together:
        parts.append(_trials(plan, tuning))
    if plan.mean_over and set(found) >= set(plan.mean_over):
        heads, rows = mean_over_settings(plan, results)
        lines = ["## Mean over the settings\n", f"The mean of each seed over {', '.join(plan.mean_over)}.\n"]
        lines += [*_heads(["method", *heads]), *(markdown_row([name, *cells]) for name, cells in rows.items())]
        parts.append("\n".join(lines) + "\n")
    parts += [_section(plan, setting, runs.filter(setting=setting), tuning) for setting in found]
    parts.append(_NOTES + "\n")
    if _diverged(runs):
        parts.append(f"{DIVERGED} {DIVERGED_NOTE}\n")
    if plan.figures:
        from ftp_cl.study.plan_figures import write_plan_figures  # matplotlib

        parts += write_plan_figures(plan, results)
    path = results.directory / "README.md"
    replace_files({path: "\n".join(parts).encode()})
    return path


def differences(results: Store) -> str:
    """The difference of every two rows of a setting in each measure, as CSV."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["setting", "row", "reference", "measure", "difference", "low", "high", "n"])
    for *names, measure, ends, n in each_difference(results.frame(RUNS_FILE)):
        writer.writerow([*(csv_cell(printable(name)) for name in names), measure, *(f"{end:.2f}" for end in ends), n])
    return buffer.getvalue()


def each_difference(frame: pl.DataFrame) -> Iterator[tuple[str, str, str, str, tuple[float, float, float], int]]:
    """Setting, row, reference, measure, mean and ends of the paired difference's 95 % interval, number of seeds."""
    for (setting,), runs in frame.group_by("setting", maintain_order=True):
        names = runs["row"].unique(maintain_order=True).to_list()
        values = {name: [_values(runs, name, measure) for measure in _MEASURES.values()] for name in names}
        for name, reference in itertools.combinations(names, 2):
            for measure, *both in zip(_MEASURES.values(), values[name], values[reference], strict=True):
                pairs = paired(*both)
                if len(pairs) >= FEWEST_SEEDS:
                    ends = (float(np.mean(pairs)), *paired_interval(pairs))
                    yield str(setting), name, reference, measure, ends, len(pairs)


def _runs_of(plan: Plan, results: Store) -> pl.DataFrame:
    """What belongs to the plan, in its order."""
    order = [(setting, method.name) for setting in plan.settings for method in plan.in_setting(setting)]
    places = pl.DataFrame(order, schema={"setting": pl.String, "row": pl.String}, orient="row")
    return places.join(results.frame(RUNS_FILE), on=["setting", "row"], maintain_order="left_right")


def _diverged(runs: pl.DataFrame) -> set[str]:
    """Rows with a run whose numbers were not finite; a column of JSON, which no run has had so far where it lacks."""
    return set(runs.filter(pl.col("diverged") == "true")["row"]) if "diverged" in runs.columns else set()


def _values(runs: pl.DataFrame, name: str, measure: str) -> dict[int, float]:
    """Of each seed that has it."""
    return dict(runs.filter(row=name).select("seed", measure).drop_nulls().iter_rows())


def _section(plan: Plan, setting: str, runs: pl.DataFrame, tuning: Sequence[Mapping[str, Any]]) -> str:
    methods = {method.name: method for method in plan.methods}
    lines = [f"## {setting}\n", f"{experiment_description(plan.experiment(setting))}\n"]
    if (tuned := plan.tuning_settings(setting)) != (setting,) and not plan.tuned_together:
        lines.append(f"All methods have the values that were chosen in {', '.join(tuned)}.\n")
    shown = [measure for measure, column in _MEASURES.items() if runs[column].is_not_null().any()]
    heads, rows = _compared(runs, plan.references, shown)
    lines += _heads(["method", *heads, "train s", "MiB", "n", "trials", "chosen on validation"])
    for name, cells in rows.items():
        of_row = runs.filter(row=name)
        trials = {tuple(run["overrides"]) for run in tuning if run["row"] == name and run["setting"] in tuned}
        cells = [
            f"{name} {DIVERGED}" if name in _diverged(runs) else name,
            *cells,
            f"{np.median(of_row['train_seconds']):.0f}",
            "" if (memory := of_row.select(pl.mean("peak_memory_mb")).item()) is None else f"{memory:.0f}",
            str(of_row.height),
            str(len(trials)),
            _choice(plan, methods[name], setting, tuning),
        ]
        lines.append(markdown_row(cells))
    return "\n".join(lines) + "\n"


def mean_over_settings(plan: Plan, results: Store) -> tuple[list[str], dict[str, list[str]]]:
    """Each row that takes part in all settings of `mean_over`: the mean over them of each seed that all have.

    Returns:
        Heads of the columns behind the name, and the cells of each row by its name, the highest accuracy first.
    """
    means = settings_means(plan, results)
    # What is chosen on validation images sees no other styles.
    shown = ["accuracy", "OOD"] if means["ood_average"].is_not_null().any() else ["accuracy"]
    heads, rows = _compared(means, plan.references, shown)
    return [*heads, "n"], {name: [*cells, str(means.filter(row=name).height)] for name, cells in rows.items()}


def settings_means(plan: Plan, results: Store) -> pl.DataFrame:
    """The mean over the settings of `mean_over`, of each row and seed that takes part in all of them."""
    runs = _runs_of(plan, results).filter(pl.col("setting").is_in(plan.mean_over))
    means = runs.group_by("row", "seed", maintain_order=True).agg(
        pl.len(), *(pl.col(measure).mean() for measure in _MEASURES.values()), pl.col("^metric$").first()
    )
    return means.filter(pl.col("len") == len(plan.mean_over))


def _compared(
    runs: pl.DataFrame, references: Sequence[str], measures: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Mean and deviation of each row, and its differences to the references: the heads, and the cells by row."""
    means = runs.group_by("row", maintain_order=True).agg(pl.col("average_accuracy").mean())
    names = means.sort("average_accuracy", descending=True, nulls_last=True, maintain_order=True)["row"].to_list()
    references = [name for name in references if name in names]
    deltas = [measure for measure in measures if measure != "forgetting"]
    values = {(name, measure): _values(runs, name, _MEASURES[measure]) for name in names for measure in measures}
    names_of = {measure: name_of(measure, runs) for measure in measures}
    heads = [*names_of.values(), *(f"Δ {names_of[measure]} to {name}" for name in references for measure in deltas)]
    rows = {
        name: [
            *(Spread.of(own).text() if (own := list(values[name, measure].values())) else "" for measure in measures),
            *(
                "" if name == other else _difference(paired(values[name, measure], values[other, measure]))
                for other in references
                for measure in deltas
            ),
        ]
        for name in names
    }
    return heads, rows


def name_of(measure: str, runs: pl.DataFrame) -> str:
    """What a measure is called in a table: mean IoU, for instance, in place of accuracy."""
    found = runs["metric"].drop_nulls().unique().to_list() if "metric" in runs.columns else []
    if len(found) != 1:
        return measure
    return named("OOD accuracy" if measure == "OOD" else measure, json.loads(found[0]))


def _trials(plan: Plan, tuning: Sequence[Mapping[str, Any]]) -> str:
    """How much a method's trials differ, where one is chosen for all settings."""
    lines = [
        "## Trials\n",
        f"Mean accuracy on the validation streams of {', '.join(plan.tuning_settings(plan.settings[0]))}, seeds "
        f"{', '.join(map(str, plan.tuning_seeds))}. The best trial is what the tables below report, on other seeds.\n",
        *_heads(["method", "trials", "best", "median", "worst", "chosen for all settings"]),
    ]
    for method in plan.methods:
        if means := trial_means(plan, method, plan.settings[0], tuning) if method.space else None:
            best, median, worst = (f"{of(list(means.values())):.1f}" for of in (max, np.median, min))
            values = _choice(plan, method, plan.settings[0], tuning)
            lines.append(markdown_row([method.name, str(len(means)), best, median, worst, values]))
    return "\n".join(lines) + "\n"


def _choice(plan: Plan, method: ComparedMethod, setting: str, tuning: Sequence[Mapping[str, Any]]) -> str:
    """The values that tuning has chosen."""
    words = chosen(plan, method, setting, tuning) or ()
    return ", ".join(f"`{word}`" for word in words if word not in method.overrides)


def _difference(differences: Sequence[float]) -> str:
    if len(differences) < FEWEST_SEEDS:
        return ""
    low, high = paired_interval(differences)
    text = f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _heads(cells: Sequence[str]) -> list[str]:
    return [markdown_row(cells), markdown_row(["---"] * len(cells))]
