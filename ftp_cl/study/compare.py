"""Carries out a comparison, in pieces: what is finished is not run again."""

import contextlib
import gc
import io
import itertools
import json
import os
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ftp_cl.runs.config import ConfigError, load_config, prepared
from ftp_cl.runs.imports import without_collections
from ftp_cl.runs.lock import DirectoryLock
from ftp_cl.runs.output import sentence
from ftp_cl.runs.text import printable
from ftp_cl.study.plan import ComparedMethod, Plan
from ftp_cl.study.store import Store

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


def compare(plan: Plan, results: Store, runs: Path, workers: int | None = None, minutes: float | None = None) -> int:
    """Tune every method on the validation stream of the tuning seeds, then run the best trial on the other seeds.

    Args:
        plan: what to compare.
        results: gets a row for each run, as runs end. What is there and belongs to the plan is not run again.
        runs: gets the run directories. A finished one whose row a kill has prevented gives it without being run again.
        workers: runs at a time, one thread each, on the GPUs in turn; None for one per GPU, without any one per core.
        minutes: start no run after so many; None for no limit.

    Returns:
        How many runs are still missing: those that failed, or that time did not suffice for.
    """
    console, end = Console(), None if minutes is None else time.monotonic() + 60 * minutes
    stages = [(jobs, setting) for setting in plan.settings for jobs in (_tuning_jobs, _seed_jobs)]
    for jobs, setting in stages:
        _carry_out(jobs(plan, setting, results), results, runs, workers, end, console)
    # A set, because settings may share their tuning.
    return len({job for jobs, setting in stages for job in jobs(plan, setting, results)})


# ---- what is missing ------------------------------------------------------------------------------------------------


def _tuning_jobs(plan: Plan, setting: str, results: Store) -> list[_Job]:
    done = {(run["setting"], run["row"], tuple(run["overrides"]), run["seed"]) for run in results.tuning()}
    return [
        _Job(tuned, plan.experiment(tuned), method.name, overrides, seed, tunes=True)
        for method in plan.in_setting(setting)
        for tuned in plan.tuning_settings(setting, method)
        for overrides in _trials(plan, method)
        for seed in plan.tuning_seeds
        if (tuned, method.name, overrides, seed) not in done
    ]


def _seed_jobs(plan: Plan, setting: str, results: Store) -> list[_Job]:
    done = {(run["row"], run["seed"]): OmegaConf.create(run["config"]) for run in results.runs(setting)}
    tuning = results.tuning()
    return [
        _Job(setting, plan.experiment(setting), method.name, overrides, seed, tunes=False)
        for method in plan.in_setting(setting)
        if (overrides := chosen(plan, method, setting, tuning)) is not None
        for values in [prepared(overrides)]  # with=ftp is no key of a configuration
        for seed in plan.seeds
        if not _fits(done.get((method.name, seed)), values)
    ]


def _trials(plan: Plan, method: ComparedMethod) -> list[tuple[str, ...]]:
    """None for a method without anything to tune."""
    return method.trials(plan.trials) if method.space else []


def chosen(
    plan: Plan, method: ComparedMethod, setting: str, tuning: Sequence[Mapping[str, Any]]
) -> tuple[str, ...] | None:
    """The overrides of the trial with the best mean over the tuning seeds; None as long as one is missing.

    Args:
        plan: of the comparison.
        method: to choose for.
        setting: in which the choice is used.
        tuning: all tuning runs of the plan, from `Store.tuning`.
    """
    if not method.space:
        return method.trials(1)[0]
    means = trial_means(plan, method, setting, tuning)
    return None if means is None else max(means, key=means.__getitem__)


def trial_means(
    plan: Plan, method: ComparedMethod, setting: str, tuning: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, ...], float] | None:
    """The score of each trial, its mean over the tuning seeds and the settings that are tuned in; None as `chosen`."""
    scores = {
        (run["setting"], tuple(run["overrides"]), run["seed"]): run[OBJECTIVE]
        for run in tuning
        if run["row"] == method.name
    }
    cells = list(itertools.product(plan.tuning_settings(setting, method), plan.tuning_seeds))
    try:
        return {
            trial: statistics.fmean(scores[tuned, trial, seed] for tuned, seed in cells)
            for trial in _trials(plan, method)
        }
    except KeyError:
        return None


def _fits(config: Any, overrides: Sequence[str]) -> bool:
    """Whether a run is there, with the values that these overrides ask for."""
    if config is None:
        return False
    for override in overrides:
        key, _, value = override.partition("=")
        found = OmegaConf.select(config, f"{key}.name" if key in ("method", "model", "benchmark") else key)
        if found != OmegaConf.create({"value": OmegaConf.from_dotlist([f"value={value}"]).value}).value:
            return False
    return True


# ---- running --------------------------------------------------------------------------------------------------------


def _carry_out(
    jobs: Sequence[_Job], results: Store, runs: Path, workers: int | None, end: float | None, console: Console
) -> None:
    if not jobs:
        return
    workers = workers or _gpus() or os.cpu_count() or 1
    # Methods take turns, so that a comparison that is cut off has something of each.
    in_turns = sorted(jobs, key=lambda job: job.seed)
    in_time = itertools.takewhile(lambda job: end is None or time.monotonic() < end, in_turns)
    at_once = min(workers, len(jobs))
    parallel = Parallel(at_once, return_as="generator_unordered", pre_dispatch=workers, batch_size=1)
    ended = parallel(delayed(_run)(job, runs, os.getpid(), at_once) for job in in_time)
    for number, (job, result, error) in enumerate(ended, 1):
        where = f"{number} of {len(jobs)}: {job.setting}, {job.method}, seed {job.seed}"
        if result is None:
            _say(console, f"{where} failed: {error}")
            continue
        if job.tunes:
            results.add_tuning(job.setting, job.method, job.overrides, result)
        else:
            results.add_run(job.setting, job.method, result)
        score = f"{result['config']['eval']['stream']} {result[OBJECTIVE]:.1f} %"
        _say(console, f"{where}: {score} ({' '.join(job.overrides)})")


def _gpus() -> int:
    from torch import cuda  # torch, which a plan of which nothing is missing need not wait for

    return cuda.device_count() if cuda.is_available() else 0


@contextmanager
def gpu_of_its_own(config: DictConfig, directory: Path, at_once: int) -> Iterator[None]:
    """Let the device of a run be the GPU that fewest of the runs beside it have.

    Args:
        config: of the run. One that names its GPU, or the CPU, is left alone.
        directory: in which the runs that are carried out now hold locks, one each.
        at_once: how many they are at most.
    """
    gpus = _gpus() if at_once > 1 and config.device in ("auto", "cuda") else 0
    with contextlib.ExitStack() as held:
        for number in range(at_once if gpus else 0):
            try:
                held.enter_context(DirectoryLock(directory / str(number)))
            except ConfigError:  # another run has it
                continue
            import torch

            torch.cuda.set_device(number % gpus)
            break
        yield


def _say(console: Console, line: str) -> None:
    console.print(printable(line), highlight=False, markup=False)


@cache
def end_with(parent: int) -> None:
    """Let this worker get SIGTERM once the process that started it is gone: joblib's would go on for long."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        while True:  # the first ends a run, after which joblib begins the next that it was given
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2)

    if parent != os.getpid():
        threading.Thread(target=watch, daemon=True).start()


def _run(job: _Job, runs: Path, parent: int, at_once: int) -> tuple[_Job, dict[str, Any] | None, str | None]:
    """In a worker: the job's result, or a sentence on what went wrong."""
    end_with(parent)
    name = ",".join([*job.overrides, f"seed={job.seed}"]).replace("/", "_")
    directory = runs / job.setting / job.method / ("tuning" if job.tunes else "reported") / name
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with without_collections():
                from ftp_cl.runs.run import run  # imports torch and Avalanche, which the plan need not wait for

            gc.collect()  # a trained model is part of a circle, and the one before may still have its memory
            config = load_config(job.all_overrides)
            with gpu_of_its_own(config, runs / ".gpus", at_once):
                path = run(config, directory)
        return job, json.loads(path.read_text()), None
    except Exception as error:  # the others go on
        return job, None, sentence(error)
