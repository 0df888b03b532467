"""The tables of a comparison, from its results alone."""

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from ftp_cl.experiment.comparison.plan import ComparedMethod, Plan
from ftp_cl.experiment.comparison.run import chosen, read_tuning, seed_path, trial_means
from ftp_cl.experiment.config import config_directory
from ftp_cl.report import Group, Spread, aggregate, load_results, replace_files
from ftp_cl.report.groups import DIVERGED, DIVERGED_NOTE

_RESAMPLES = 10_000

_DIGITS = 6
"""Of an interval's ends: results are stored with rounding errors below that, which must not make a difference."""

_MEASURES = ("average_accuracy", "ood_average", "average_forgetting")

_NOTES = (
    "Mean ± standard deviation over n seeds, percent; forgetting in points. Differences (Δ): method minus reference on "
    "the seeds that both have, with the 95 % percentile bootstrap interval over seeds; **bold** where it excludes 0. "
    "With few seeds such an interval is too narrow rather than too wide. Training time is the median, on one thread, "
    "other runs beside it; memory is the largest of the whole process, with Python, torch and the images. "
    "`differences.csv` has the difference of any two methods, `summary.csv` each run."
)


def write_tables(plan: Plan, results: Path) -> Path:
    """Write README.md (all tables), summary.csv, differences.csv and the plan's figures from what is in `results`.

    Args:
        plan: of the comparison.
        results: its directory.

    Returns:
        The path of README.md.

    Raises:
        ReportError: a result is damaged.
    """
    parts = ["# Results\n", "Made by `make results`. How methods are tuned and seeds chosen: docs/protocol.md.\n"]
    found = {setting: groups for setting in plan.settings if (groups := _groups(plan, setting, results))}
    if plan.tuned_together:
        parts.append(_trials(plan, results))
    if plan.mean_over and found.keys() >= set(plan.mean_over):
        parts.append(_mean_over_settings(plan, {setting: found[setting] for setting in plan.mean_over}))
    parts += [_section(plan, setting, groups, results) for setting, groups in found.items()]
    parts.append(_NOTES + "\n")
    if any(run.diverged for groups in found.values() for group in groups.values() for run in group.results):
        parts.append(f"{DIVERGED} {DIVERGED_NOTE}\n")
    if plan.figures:
        from ftp_cl.experiment.comparison.figures import write_plan_figures  # matplotlib

        parts += write_plan_figures(plan, found, results)
    path = results / "README.md"
    written = {"summary.csv": _csv(_summary(found)), "differences.csv": _csv(_differences(found))}
    replace_files({path: "\n".join(parts).encode(), **{results / name: text for name, text in written.items()}})
    return path


def _csv(rows: Iterator[Sequence[Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _summary(found: Mapping[str, Mapping[str, Group]]) -> Iterator[Sequence[Any]]:
    """One line for each run."""
    yield "setting", "method", "seed", *_MEASURES
    for setting, groups in found.items():
        for name, group in groups.items():
            for run in group.results:
                yield setting, name, run.seed, *(getattr(run, measure) for measure in _MEASURES)


def _differences(found: Mapping[str, Mapping[str, Group]]) -> Iterator[Sequence[Any]]:
    """One line for each two methods of a setting and each measure."""
    yield "setting", "method", "reference", "measure", "difference", "low", "high", "n"
    for setting, groups in found.items():
        for (name, group), (other, reference) in itertools.combinations(groups.items(), 2):
            for measure in _MEASURES:
                differences = _paired(_values(group, measure), _values(reference, measure))
                if len(differences) > 1:
                    ends = (np.mean(differences), *paired_interval(differences))
                    yield setting, name, other, measure, *(f"{end:.2f}" for end in ends), len(differences)


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
    if (tuned := plan.tuning_settings(setting)) != (setting,) and not plan.tuned_together:
        lines.append(f"All methods have the values that were chosen in {', '.join(tuned)}.\n")
    lines += [_row(heads), _row(["---"] * len(heads))]
    methods = {method.name: method for method in plan.methods}
    for name, group in sorted(groups.items(), key=lambda item: -_mean_accuracy(item[1])):
        trials = {tuple(run["overrides"]) for where in tuned for run in read_tuning(results / where / name)}
        differences = [
            "" if name == reference else _difference(_values(group, measure), _values(groups[reference], measure))
            for reference in references
            for measure in ("average_accuracy", "ood_average")
        ]
        cells = [
            name + group.marked_label.removeprefix(group.label),
            _spread(group.spread(lambda run: run.average_accuracy)),
            _spread(group.spread(lambda run: run.ood_average)),
            _spread(group.spread(lambda run: run.average_forgetting)),
            *differences,
            f"{np.median([run.train_seconds for run in group.results]):.0f}",
            _spread(group.spread(lambda run: run.peak_memory_mb), digits=0, deviation=False),
            str(len(group.results)),
            str(len(trials)),
            _choice(plan, methods[name], setting, results),
        ]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _trials(plan: Plan, results: Path) -> str:
    """How much a method's trials differ, where one is chosen for all settings."""
    lines = [
        "## Trials\n",
        f"Mean accuracy on the validation streams of {', '.join(plan.tuning_settings(plan.settings[0]))}, seeds "
        f"{', '.join(map(str, plan.tuning_seeds))}. The best trial is what the tables below report, on other seeds.\n",
        _row(["method", "trials", "best", "median", "worst", "chosen for all settings"]),
        _row(["---"] * 6),
    ]
    for method in plan.methods:
        if means := trial_means(plan, method, plan.settings[0], results) if method.space else None:
            best, median, worst = (f"{of(list(means.values())):.1f}" for of in (max, np.median, min))
            values = _choice(plan, method, plan.settings[0], results)
            lines.append(_row([method.name, str(len(means)), best, median, worst, values]))
    return "\n".join(lines) + "\n"


def _choice(plan: Plan, method: ComparedMethod, setting: str, results: Path) -> str:
    """The values that tuning has chosen."""
    words = chosen(plan, method, setting, results) or ()
    return ", ".join(f"`{word}`" for word in words if word not in method.overrides)


def _mean_over_settings(plan: Plan, found: Mapping[str, Mapping[str, Group]]) -> str:
    """Each method that takes part in all these settings: the mean of a seed over them."""
    measures = {"accuracy": "average_accuracy", "OOD": "ood_average"}
    if not any(_values(group, measures["OOD"]) for groups in found.values() for group in groups.values()):
        del measures["OOD"]  # what is chosen on validation images sees no other styles
    means = {
        method.name: [_over_settings(found, method.name, measure) for measure in measures.values()]
        for method in plan.methods
    }
    means = {name: of for name, of in means.items() if all(of)}
    references = [name for name in plan.references if name in means]
    heads = [
        "method",
        *measures,
        *(f"Δ {what} to {name}" for name in references for what in measures),
    ]
    lines = ["## Mean over the settings\n", f"The mean of each seed over {', '.join(found)}.\n"]
    lines += [_row([*heads, "n"]), _row(["---"] * (len(heads) + 1))]
    for name, of in sorted(means.items(), key=lambda item: -np.mean(list(item[1][0].values()))):
        spreads = [_spread(Spread.of(list(values.values()))) for values in of]
        differences = [
            "" if name == reference else _difference(values, of_reference)
            for reference in references
            for values, of_reference in zip(of, means[reference], strict=True)
        ]
        lines.append(_row([name, *spreads, *differences, str(len(of[0]))]))
    return "\n".join(lines) + "\n"


def _over_settings(found: Mapping[str, Mapping[str, Group]], name: str, measure: str) -> dict[int, float]:
    """The mean of each seed that all settings have; empty if the method is not in all of them."""
    of_settings = [_values(groups[name], measure) for groups in found.values() if name in groups]
    if not of_settings or len(of_settings) < len(found):
        return {}
    seeds = sorted(set.intersection(*(set(values) for values in of_settings)))
    return {seed: float(np.mean([values[seed] for values in of_settings])) for seed in seeds}


def _values(group: Group, measure: str) -> dict[int, float]:
    """Of each seed that has it."""
    return group.by_seed(lambda run: getattr(run, measure))


def _mean_accuracy(group: Group) -> float:
    return float(np.mean(list(_values(group, "average_accuracy").values())))


def _spread(spread: Spread | None, digits: int = 1, deviation: bool = True) -> str:
    if spread is None:
        return ""
    text = f"{spread.mean:.{digits}f}"
    return text if spread.std is None or not deviation else f"{text} ± {spread.std:.{digits}f}"


def _paired(values: Mapping[int, float], reference: Mapping[int, float]) -> list[float]:
    """Differences on the seeds that both have."""
    return [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]


def _difference(values: Mapping[int, float], reference: Mapping[int, float]) -> str:
    differences = _paired(values, reference)
    if len(differences) < 2:
        return ""
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
    low, high = (round(float(end), _DIGITS) for end in found.confidence_interval)
    return low, high


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
