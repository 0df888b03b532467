"""The tables of a comparison, from its results alone."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from ftp_cl.experiment.comparison.plan import ComparedMethod, Plan
from ftp_cl.experiment.comparison.run import chosen, read_tuning, seed_path
from ftp_cl.experiment.config import config_directory
from ftp_cl.report import Group, Spread, aggregate, load_results, replace_files

_RESAMPLES = 10_000

_NOTES = (
    "Mean ± standard deviation over n seeds, percent; forgetting in points. Differences (Δ): method minus reference on "
    "the seeds that both have, with the 95 % percentile bootstrap interval over seeds; **bold** where it excludes 0. "
    "With few seeds such an interval is too narrow rather than too wide. Training time is the median, on one thread, "
    "other runs beside it; memory is the largest of the whole process, with Python, torch and the images."
)


def write_tables(plan: Plan, results: Path) -> Path:
    """Write README.md (all tables), summary.csv and the plan's figures from what is in `results`.

    Args:
        plan: of the comparison.
        results: its directory.

    Returns:
        The path of README.md.

    Raises:
        ReportError: a result is damaged.
    """
    parts = ["# Results\n", "Made by `make results`. How methods are tuned and seeds chosen: docs/protocol.md.\n"]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["setting", "method", "seed", "average_accuracy", "ood_average", "average_forgetting"])
    found = {setting: _groups(plan, setting, results) for setting in plan.settings}
    for setting, groups in found.items():
        if not groups:
            continue
        parts.append(_section(plan, setting, groups, results))
        for name, group in groups.items():
            for run in group.results:
                writer.writerow(
                    [setting, name, run.seed, run.average_accuracy, run.ood_average, run.average_forgetting]
                )
    parts.append(_NOTES + "\n")
    if plan.figures:
        from ftp_cl.experiment.comparison.figures import write_plan_figures  # matplotlib

        parts += write_plan_figures(plan, found, results)
    path = results / "README.md"
    replace_files({path: "\n".join(parts).encode(), results / "summary.csv": buffer.getvalue().encode()})
    return path


def _groups(plan: Plan, setting: str, results: Path) -> dict[str, Group]:
    return {method.name: group for method in plan.in_setting(setting) if (group := _group(results, setting, method))}


def _group(results: Path, setting: str, method: ComparedMethod) -> Group | None:
    files = sorted((results / setting / method.name).glob(seed_path(Path(), 0).name.replace("0", "*")))
    if not files:
        return None
    # A directory is a row: keys that the configuration has gained in the meantime do not part its results.
    found = sorted(load_results(files), key=lambda result: result.seed)
    return replace(aggregate(found[-1:])[0], results=tuple(found))


def _section(plan: Plan, setting: str, groups: dict[str, Group], results: Path) -> str:
    file = config_directory() / "experiment" / f"{plan.experiment(setting)}.yaml"
    title = file.read_text().splitlines()[2].removeprefix("# ")
    references = [name for name in plan.references if name in groups]
    heads = ["method", "accuracy", "OOD", "forgetting"]
    heads += [f"Δ {what} to {name}" for name in references for what in ("accuracy", "OOD")]
    heads += ["train s", "MiB", "n", "trials", "chosen on validation"]
    lines = [f"## {setting}\n", f"{title}\n"]
    if (tuned := plan.tuning_setting(setting)) != setting:
        lines.append(f"All methods have the values that were chosen in {tuned}.\n")
    lines += [_row(heads), _row(["---"] * len(heads))]
    methods = {method.name: method for method in plan.methods}
    for name, group in sorted(groups.items(), key=lambda item: -np.mean(list(_accuracy(item[1]).values()))):
        directory = results / tuned / name
        trials = {tuple(run["overrides"]) for run in read_tuning(directory)}
        differences = [
            "" if name == reference else _difference(read(group), read(groups[reference]))
            for reference in references
            for read in (_accuracy, _ood)
        ]
        cells = [
            name,
            _spread(group.spread(lambda run: run.average_accuracy)),
            _spread(group.spread(lambda run: run.ood_average)),
            _spread(group.spread(lambda run: run.average_forgetting)),
            *differences,
            f"{np.median([run.train_seconds for run in group.results]):.0f}",
            _spread(group.spread(lambda run: run.peak_memory_mb), digits=0, deviation=False),
            str(len(group.results)),
            str(len(trials)),
            ", ".join(
                f"`{word}`"
                for word in chosen(plan, methods[name], directory) or ()
                if word not in methods[name].overrides
            ),
        ]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _accuracy(group: Group) -> dict[int, float]:
    return group.by_seed(lambda run: run.average_accuracy)


def _ood(group: Group) -> dict[int, float]:
    return group.by_seed(lambda run: run.ood_average)


def _spread(spread: Spread | None, digits: int = 1, deviation: bool = True) -> str:
    if spread is None:
        return ""
    text = f"{spread.mean:.{digits}f}"
    return text if spread.std is None or not deviation else f"{text} ± {spread.std:.{digits}f}"


def _difference(values: dict[int, float], reference: dict[int, float]) -> str:
    common = sorted(values.keys() & reference.keys())
    if len(common) < 2:
        return ""
    differences = [values[seed] - reference[seed] for seed in common]
    low, high = paired_interval(differences)
    text = f"{np.mean(differences):+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of paired differences (Efron and Tibshirani 1993, ch. 13).

    Args:
        differences: one per seed, at least two.
    """
    found = bootstrap(
        (np.asarray(differences),), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
