"""Carries out a comparison, in pieces: what is finished is not run again."""

import contextlib
import io
import itertools
import json
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from omegaconf import OmegaConf
from rich.console import Console

from ftp_cl.experiment.comparison.plan import ComparedMethod, Plan
from ftp_cl.experiment.config import load_config
from ftp_cl.experiment.output import sentence
from ftp_cl.report import replace_files

TUNING_FILE = "tuning.json"
OBJECTIVE = "average_accuracy"

_VALIDATE = ("eval.stream=validation", "eval.ood_every=never")
_EACH = ("threads=1", "checkpoint.every_minutes=null")


@dataclass(frozen=True)
class _Job:
    """One run that is missing."""

    setting: str
    experiment: str
    method: str
    overrides: tuple[str, ...]
    seed: int
    tunes: bool

    @property
    def all_overrides(self) -> list[str]:
        """Of the command line that would run it."""
        stream = _VALIDATE if self.tunes else ()
        label = f"label='{self.method}'"
        return [f"+experiment={self.experiment}", *self.overrides, *stream, *_EACH, label, f"seed={self.seed}"]


def compare(plan: Plan, results: Path, runs: Path, workers: int | None = None, minutes: float | None = None) -> int:
    """Tune every method on the validation stream of the tuning seeds, then run the best trial on the other seeds.

    Args:
        plan: what to compare.
        results: gets `<setting>/<method>/tuning.json` and `<setting>/<method>/seed<seed>.json`, as runs end. What is
            there and belongs to the plan is not run again.
        runs: gets the run directories, which may be removed afterwards.
        workers: runs at a time, one thread each; None for one per core.
        minutes: start no run after so many; None for no limit.

    Returns:
        How many runs are still missing: those that failed, or that time did not suffice for.
    """
    console, end = Console(), None if minutes is None else time.monotonic() + 60 * minutes
    workers = workers or os.cpu_count() or 1
    stages = [(jobs, setting) for setting in plan.settings for jobs in (_tuning_jobs, _seed_jobs)]
    for jobs, setting in stages:
        _carry_out(jobs(plan, setting, results), results, runs, workers, end, console)
    # A set, because settings may share their tuning.
    return len({job for jobs, setting in stages for job in jobs(plan, setting, results)})


# ---- what is missing ------------------------------------------------------------------------------------------------


def _tuning_jobs(plan: Plan, setting: str, results: Path) -> list[_Job]:
    jobs = []
    for method, tuned in [(m, tuned) for m in plan.in_setting(setting) for tuned in plan.tuning_settings(setting, m)]:
        done = {(tuple(run["overrides"]), run["seed"]) for run in read_tuning(results / tuned / method.name)}
        for overrides in _trials(plan, method):
            jobs += [
                _Job(tuned, plan.experiment(tuned), method.name, overrides, seed, tunes=True)
                for seed in plan.tuning_seeds
                if (overrides, seed) not in done
            ]
    return jobs


def _seed_jobs(plan: Plan, setting: str, results: Path) -> list[_Job]:
    jobs = []
    for method in plan.in_setting(setting):
        directory = results / setting / method.name
        overrides = chosen(plan, method, setting, results)
        if overrides is not None:
            jobs += [
                _Job(setting, plan.experiment(setting), method.name, overrides, seed, tunes=False)
                for seed in plan.seeds
                if not _is_result_of(seed_path(directory, seed), overrides)
            ]
    return jobs


def _trials(plan: Plan, method: ComparedMethod) -> list[tuple[str, ...]]:
    """None for a method without anything to tune."""
    return method.trials(plan.trials) if method.space else []


def chosen(plan: Plan, method: ComparedMethod, setting: str, results: Path) -> tuple[str, ...] | None:
    """The overrides of the trial with the best mean over the tuning seeds; None as long as one is missing.

    Args:
        plan: of the comparison.
        method: to choose for.
        setting: in which the choice is used.
        results: directory of the comparison.
    """
    if not method.space:
        return method.trials(1)[0]
    means = trial_means(plan, method, setting, results)
    return None if means is None else max(means, key=means.__getitem__)


def trial_means(plan: Plan, method: ComparedMethod, setting: str, results: Path) -> dict[tuple[str, ...], float] | None:
    """The score of each trial, its mean over the tuning seeds and the settings that are tuned in; None as `chosen`."""
    scores = {
        (tuned, tuple(run["overrides"]), run["seed"]): run[OBJECTIVE]
        for tuned in plan.tuning_settings(setting, method)
        for run in read_tuning(results / tuned / method.name)
    }
    cells = list(itertools.product(plan.tuning_settings(setting, method), plan.tuning_seeds))
    try:
        return {
            trial: statistics.fmean(scores[tuned, trial, seed] for tuned, seed in cells)
            for trial in _trials(plan, method)
        }
    except KeyError:
        return None


def read_tuning(directory: Path) -> list[dict[str, Any]]:
    """The tuning runs of one method in one setting: overrides, seed, score and training time of each."""
    path = directory / TUNING_FILE
    return json.loads(path.read_text()) if path.exists() else []


def seed_path(directory: Path, seed: int) -> Path:
    """Where the result of a reported seed is."""
    return directory / f"seed{seed}.json"


def _is_result_of(path: Path, overrides: Sequence[str]) -> bool:
    """Whether a result is there, with the values that these overrides ask for."""
    if not path.exists():
        return False
    config = OmegaConf.create(json.loads(path.read_text())["config"])
    for override in overrides:
        key, _, value = override.partition("=")
        found = OmegaConf.select(config, f"{key}.name" if key in ("method", "model", "benchmark") else key)
        if found != OmegaConf.create({"value": OmegaConf.from_dotlist([f"value={value}"]).value}).value:
            return False
    return True


# ---- running --------------------------------------------------------------------------------------------------------


def _carry_out(
    jobs: Sequence[_Job], results: Path, runs: Path, workers: int, end: float | None, console: Console
) -> None:
    if not jobs:
        return
    # Methods take turns, so that a comparison that is cut off has something of each.
    in_turns = sorted(jobs, key=lambda job: job.seed)
    in_time = itertools.takewhile(lambda job: end is None or time.monotonic() < end, in_turns)
    parallel = Parallel(min(workers, len(jobs)), return_as="generator_unordered", pre_dispatch=workers, batch_size=1)
    ended = parallel(delayed(_run)(job, runs) for job in in_time)
    for number, (job, result, error) in enumerate(ended, 1):
        where = f"{number} of {len(jobs)}: {job.setting}, {job.method}, seed {job.seed}"
        if result is None:
            console.print(f"{where} failed: {error}", highlight=False, markup=False)
            continue
        _keep(job, result, results / job.setting / job.method)
        score = f"{result['config']['eval']['stream']} {result[OBJECTIVE]:.1f} %"
        console.print(f"{where}: {score} ({' '.join(job.overrides)})", highlight=False)


def _run(job: _Job, runs: Path) -> tuple[_Job, dict[str, Any] | None, str | None]:
    """In a worker: the job's result, or a sentence on what went wrong."""
    name = ",".join([*job.overrides, f"seed={job.seed}"]).replace("/", "_")
    directory = runs / job.setting / job.method / ("tuning" if job.tunes else "reported") / name
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ftp_cl.experiment.run import run  # imports torch and Avalanche, which the plan need not wait for

            path = run(load_config(job.all_overrides), directory)
        return job, json.loads(path.read_text()), None
    except Exception as error:  # the others go on
        return job, None, sentence(error)


def _keep(job: _Job, result: dict[str, Any], directory: Path) -> None:
    if job.tunes:
        run = {"overrides": list(job.overrides), "seed": job.seed}
        run |= {key: result[key] for key in (OBJECTIVE, "train_seconds")}
        others = [
            old for old in read_tuning(directory) if (old["overrides"], old["seed"]) != (run["overrides"], job.seed)
        ]
        content: Any = [*others, run]
        path = directory / TUNING_FILE
    else:
        content, path = {**result, "projection": {}}, seed_path(directory, job.seed)
    replace_files({path: (json.dumps(content, indent=1) + "\n").encode()})
