"""Puts runs that differ in their seed only into one group, and gives each group a name of its own."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftp_cl.runs.schema import NOT_IDENTITY, flat
from ftp_cl.runs.text import printable
from ftp_cl.study.loading import ReportError, Result

# Top keys of the configuration, former ones too, that do not tell a group from another.
_OF_ONE_RUN = frozenset({*NOT_IDENTITY, "seed", "debug", "num_workers"})

DIVERGED = "†"
DIVERGED_NOTE = "A run diverged: its numbers or weights are not finite."

_LONGEST_VALUE = 30


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1 in the denominator; None if n = 1) of one number over n seeds."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """That of these values, at least one."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))

    def text(self, digits: int = 1) -> str:
        """Mean ± deviation, as tables have it."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.std is None else f"{mean} ± {self.std:.{digits}f}"


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one benchmark, method, model and configuration that differ in their seed.

    Attributes:
        label: unique within a benchmark: the name, and where others share it the differences.
        name: what the configuration calls it, or its method.
        differences: from groups of the same name: {key: value as shown}.
        settings: the configuration without run-local keys, flat: {dotted key: value}.
        results: one per seed, by seed.
    """

    label: str
    name: str
    differences: dict[str, str]
    benchmark: str
    method: str
    model: str
    settings: dict[str, Any]
    results: tuple[Result, ...]

    @property
    def marked_label(self) -> str:
        """The label, with `DIVERGED` behind it if a run diverged."""
        return f"{self.label} {DIVERGED}" if any(result.diverged for result in self.results) else self.label

    def by_seed(self, read: Callable[[Result], float | None]) -> dict[int, float]:
        """The number that `read` takes from each run, by seed, without the runs that lack it."""
        values = {result.seed: read(result) for result in self.results}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, read: Callable[[Result], float | None]) -> Spread | None:
        """Mean and deviation over the runs that have this number; None if no run has."""
        values = list(self.by_seed(read).values())
        if not values:
            return None
        return Spread.of(values)

    def mean_matrix(self) -> NDArray[np.float64]:
        """Accuracy matrix, mean over the seeds that evaluated an entry; NaN where none did."""
        return known_mean(np.stack([result.accuracy_matrix for result in self.results]))


def known_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis, as seeds, of those that have a value; NaN where none has."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))


def aggregate(results: Iterable[Result]) -> list[Group]:
    """Group the results by benchmark, method, model and configuration.

    A group is named by ``config.label`` if the configuration has that text, else by its method. Where several groups of
    a benchmark would get one name, the configuration keys in which they differ are added:
    "naive (optimizer.backbone_lr=1e-05)".

    A run that was repeated with the very same numbers counts once.

    Args:
        results: as `load_results` gives them.

    Returns:
        By benchmark, then by mean average accuracy, highest first.

    Raises:
        ReportError: two results of one group have the same seed and different numbers, or accuracy matrices of
            different size.
    """
    members: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        members[_identity(result)].append(result)
    for runs in members.values():
        runs.sort(key=lambda run: run.seed)
        runs[1:] = [
            run
            for before, run in pairwise(runs)
            if (before.seed, before.ood) != (run.seed, run.ood)
            or not np.array_equal(before.accuracy_matrix, run.accuracy_matrix, equal_nan=True)
        ]
        _check_members(runs)
    names = _labels([runs[0] for runs in members.values()])
    groups = [
        Group(*named, runs[0].benchmark, runs[0].method, runs[0].model, _settings(runs[0]), tuple(runs))
        for named, runs in zip(names, members.values(), strict=True)
    ]
    return sorted(groups, key=lambda g: (g.benchmark, -np.mean([run.average_accuracy for run in g.results]), g.label))


def by_benchmark(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each benchmark, order kept; those that measured something else than accuracy by themselves."""
    benchmarks: dict[str, list[Group]] = defaultdict(list)
    metrics = {(group.benchmark, group.results[0].metric) for group in groups}
    for group in groups:
        has_several = len({metric for benchmark, metric in metrics if benchmark == group.benchmark}) > 1
        name = f"{group.benchmark}, {group.results[0].metric}" if has_several else group.benchmark
        benchmarks[name].append(group)
    return dict(benchmarks)


def differing_settings(groups: Iterable[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Keys whose values differ between flat configurations: {key: one shown value each, None where unset}."""
    configurations = list(groups)
    keys = dict.fromkeys(key for settings in configurations for key in settings)
    differing = [key for key in keys if len({_comparable(settings.get(key, ...)) for settings in configurations}) > 1]
    return {
        key: [_shown(settings[key]) if key in settings else None for settings in configurations] for key in differing
    }


def _identity(result: Result) -> tuple[str, ...]:
    settings = _comparable(_settings(result))
    return result.benchmark, result.method, result.model, _name(result), settings


def _comparable(value: Any) -> str:
    """The same text for the same values: 0 and 0.0 are one."""
    return json.dumps(_unified(value), sort_keys=True, default=str)


def _unified(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unified(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unified(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name(result: Result) -> str:
    label = result.config.get("label")
    return (printable(label).strip() if isinstance(label, str) else "") or result.method


def _settings(result: Result) -> dict[str, Any]:
    """Without keys that are null: they mean what those mean that are newer than a result."""
    config = {key: value for key, value in result.config.items() if key not in _OF_ONE_RUN}
    return {printable(key): value for key, value in flat(config).items() if value is not None}


def _check_members(runs: list[Result]) -> None:
    for first, second in pairwise(runs):
        if first.seed == second.seed:
            raise ReportError(
                f"{first.path} and {second.path} are the same run twice, with different numbers: one setting "
                f"({first.method} on {first.benchmark}) and one seed ({first.seed})"
            )
        shapes = first.accuracy_matrix.shape, second.accuracy_matrix.shape
        if shapes[0] != shapes[1]:
            rows, columns = zip(*shapes, strict=True)
            what, (one, other) = ("experiences", rows) if rows[0] != rows[1] else ("test experiences", columns)
            raise ReportError(
                f"{first.path} has {one} {what} and {second.path} has {other}, though their settings are the same"
            )


def _labels(runs: list[Result]) -> list[tuple[str, str, dict[str, str]]]:
    """Label, name and differences of each group, given one run of each; labels are unique within a benchmark."""
    labels: list[tuple[str, str, dict[str, str]]] = [(_name(run), _name(run), {}) for run in runs]
    namesakes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        namesakes[run.benchmark, _name(run)].append(index)
    for (_, name), indices in namesakes.items():
        if len(indices) > 1:
            differences = _differences([runs[i] for i in indices])
            texts = [", ".join(f"{key}={value}" for key, value in own.items()) for own in differences]
            repeated = {text for text, count in Counter(texts).items() if count > 1}  # only where long values were cut
            for place, (index, own) in enumerate(zip(indices, differences, strict=True)):
                number = f" #{place + 1}" if texts[place] in repeated else ""
                labels[index] = f"{name} ({texts[place]}{number})", name, own
    return labels


def _differences(runs: list[Result]) -> list[dict[str, str]]:
    """What tells groups of one name apart: {key: value} for each."""
    settings = [{**_settings(run), "model": run.model, "method": run.method} for run in runs]
    columns = differing_settings(settings)
    # Keys that always change together tell one difference: model and model.name, say. The first one is kept.
    distinct = {tuple(values): key for key, values in reversed(columns.items())}
    kept = {key: values for values, key in distinct.items()}
    return [{key: _shortened(kept[key][i]) for key in columns if key in kept} for i in range(len(runs))]


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _shortened(value: str | None) -> str:
    if value is None:
        return "unset"
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"
