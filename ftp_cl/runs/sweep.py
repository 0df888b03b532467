"""Many runs from one command line, through Hydra's multirun: sweepers and launchers are Hydra's."""

import gc
import json
import os
import re
import shutil
import sys
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ftp_cl.runs.config import (
    ConfigError,
    check,
    config_directory,
    drop_descriptions,
    leave_size_to_model,
    load_config,
    parsed,
    prepared,
)
from ftp_cl.runs.directory import RUNS, run_directory
from ftp_cl.runs.files import replace_files
from ftp_cl.runs.imports import without_collections
from ftp_cl.runs.output import lasting_output, sentence, without_warnings_of_others
from ftp_cl.runs.schema import expanded, suggestion
from ftp_cl.runs.status import ERROR_FILE
from ftp_cl.runs.termination import TimeLimitError
from ftp_cl.runs.text import printable

PLUGINS = {"joblib": "joblib", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "optuna": "optuna"}
"""Hydra's launchers and sweepers that an extra of ours brings."""

SWEEP_VARIABLE = "FTP_CL_SWEEP"
"""Has the name of the sweep that a run belongs to."""


def run_many(overrides: list[str]) -> int:
    """Run all combinations of the values in `overrides`, each in a directory of its own.

    Finished runs are skipped. A run that fails leaves the others alone; all failures are listed at the end.

    Returns:
        The exit status: 1 if a run failed, otherwise 0.

    Raises:
        ConfigError: a value is wrong, or the launcher or sweeper is not there; nothing is run.
    """
    overrides = prepared(overrides)
    check_each_value(overrides)
    sweep = uuid.uuid4().hex
    # Hydra hands the variable to every job, on whatever machine its launcher starts it.
    command = ["ftp-cl run", "--multirun", *overrides, f"+hydra.job.env_set.{SWEEP_VARIABLE}={sweep}"]
    main = hydra.main(version_base="1.3", config_path=str(config_directory().resolve()), config_name="config")(_job)
    ended: str | None = None
    with (
        patch.object(sys, "argv", command),
        patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module="hydra")
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_without_plugin(" ".join(str(error).split()))) from error
        except Exception as error:  # whatever a launcher or sweeper raises when its jobs fail
            ended = sentence(error)
    return _report_failures(_failures(Path.cwd(), sweep), ended)


def _without_plugin(message: str) -> str:
    """Hydra's message, or what to install where it lacks a launcher or sweeper."""
    found = re.match(
        r"In 'hydra/config': Could not find 'hydra/(\w+)/(\w+)' Available options in \S+ (.*) Config", message
    )
    if found is None:
        return message
    kind, name, there = found.groups()
    if name in PLUGINS:
        return f"hydra/{kind}={name} needs pip install 'ftp-cl[{PLUGINS[name]}]'."
    return f"hydra/{kind}={name} is unknown{suggestion(name, there.split())}"


def check_each_value(overrides: Sequence[str]) -> None:
    """Check every value of a sweep, with the first ones of the other keys.

    Raises:
        ConfigError: as `load_config`.
    """
    values: list[list[str]] = []
    for override in map(parsed, overrides):
        if override.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
            continue  # launchers and sweepers have keys of their own, which Hydra checks
        if not override.is_sweep_override():
            values.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = str(override.input_line).partition("=")[0]
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
            if not values[-1]:
                raise ConfigError(f"{override.input_line} has no value: there is nothing to run.")
    first = [choices[0] for choices in values]
    load_config(first)
    for i, choices in enumerate(values):
        for choice in choices[1:]:
            load_config([*first[:i], choice, *first[i + 1 :]])


def _job(config: DictConfig) -> float | None:
    """One run of the sweep; returns the objective, for a sweeper that looks for the best."""
    # Below `out` or runs/ of where the command was called, on any machine.
    called_in, own = Path(HydraConfig.get().runtime.cwd), run_directory(HydraConfig.get().overrides.task)
    directory = called_in / own
    try:
        drop_descriptions(config)
        check(config)
        leave_size_to_model(config, HydraConfig.get().overrides.task)
        directory = called_in / (expanded(config.out) / own.name if config.out else own)
        with without_warnings_of_others(), lasting_output():
            with without_collections():
                from ftp_cl.runs.run import run

            gc.collect()  # a trained model is part of a circle, and the one before may still have its memory
            path = run(config, directory)
        if config.objective is None:
            return None
        value = json.loads(path.read_text())[config.objective]
        if value is None:
            raise ConfigError(f"objective={config.objective} does not exist in {path}.")
        return float(value)
    except (Exception, TimeLimitError) as error:
        failure = {"run": str(directory), "error": sentence(error)}
        # All write below one directory, which the command knows; where runs go may differ between them.
        file = _failures(called_in, os.environ[SWEEP_VARIABLE]) / f"{uuid.uuid4().hex}.json"
        try:
            replace_files({file: json.dumps(failure).encode()})
        except OSError:
            raise error from None
        if config.objective is not None:
            raise  # the sweeper must not take it for a value
        return None


def _failures(called_in: Path, sweep: str) -> Path:
    """Where the jobs of a sweep tell that they failed."""
    return called_in / RUNS / f".failures-{sweep}"


def _report_failures(folder: Path, ended: str | None) -> int:
    failures = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
    shutil.rmtree(folder, ignore_errors=True)
    for failure in sorted(failures, key=lambda failure: failure["run"]):
        print(f"ftp-cl: {printable(failure['run'])} failed: {failure['error']}", file=sys.stderr)
    if failures:
        words = f"{len(failures)} failed; {ERROR_FILE} in the directory of one that had begun has the traceback."
        print(f"ftp-cl: {words}", file=sys.stderr)
    if ended is not None:
        print(f"ftp-cl: the sweep ended early: {ended}", file=sys.stderr)
    return 1 if failures or ended is not None else 0
