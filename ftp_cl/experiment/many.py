"""Many runs from one command line, through Hydra's multirun: sweepers and launchers are Hydra's."""

import contextlib
import json
import os
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from ftp_cl.experiment.config import (
    ConfigError,
    check,
    config_directory,
    drop_descriptions,
    load_config,
    prepared,
)
from ftp_cl.experiment.errors import SWEEP_VARIABLE, clear_error, write_error
from ftp_cl.experiment.quiet import without_warnings_of_others
from ftp_cl.experiment.record import run_directory
from ftp_cl.report import ERROR_FILE


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
    with patch.object(sys, "argv", command), patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}), _quiet_hydra():
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split())) from error
        except Exception as error:  # whatever a launcher or sweeper raises when its jobs fail
            ended = f"{type(error).__name__}: {error}".splitlines()[0]
    return _report_failures(_root(overrides), sweep, ended)


def check_each_value(overrides: Sequence[str]) -> None:
    """Check every value of a sweep, with the first ones of the other keys.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).splitlines()[0].split())) from error
    values: list[list[str]] = []
    for override in parsed:
        if override.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
            continue  # launchers and sweepers have keys of their own, which Hydra checks
        if not override.is_sweep_override():
            values.append([str(override.input_line)])
        elif override.is_discrete_sweep():
            key = str(override.input_line).partition("=")[0]
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
    first = [choices[0] for choices in values]
    load_config(first)
    for i, choices in enumerate(values):
        for choice in choices[1:]:
            load_config([*first[:i], choice, *first[i + 1 :]])


def _job(config: DictConfig) -> float | None:
    """One run of the sweep; returns the objective, for a sweeper that looks for the best."""
    directory = job_directory(config)
    try:
        drop_descriptions(config)
        check(config)
        with without_warnings_of_others():
            from ftp_cl.experiment.run import run

            path = run(config, directory)
        clear_error(directory)
        return _objective(config, path)
    except Exception as error:
        is_written = write_error(directory, error)
        if config.objective is not None or not is_written:
            raise  # the sweeper must not take it for a value, nor a failure that nothing tells of for a success
        return None


def job_directory(config: DictConfig) -> Path:
    """Where a job of a sweep goes: below `out` or runs/, from where the command was called, on any machine."""
    hydra_config = HydraConfig.get()
    own = run_directory(hydra_config.overrides.task)
    return Path(hydra_config.runtime.cwd) / (Path(config.out) / own.name if config.out else own)


def _objective(config: DictConfig, path: Path) -> float | None:
    if config.objective is None:
        return None
    value = json.loads(path.read_text())[config.objective]
    if value is None:
        raise ConfigError(f"objective={config.objective} does not exist in {path}.")
    return float(value)


def _report_failures(root: Path, sweep: str, ended: str | None) -> int:
    failures = {path.parent: error for path, error in _errors_below(root) if error.get("sweep") == sweep}
    for directory, error in failures.items():
        print(f"ftp-cl: {directory} failed: {error['error']}", file=sys.stderr)
    if failures:
        print(f"ftp-cl: {len(failures)} failed; {ERROR_FILE} in each directory has the traceback.", file=sys.stderr)
    if ended is not None:
        print(f"ftp-cl: the sweep ended early: {ended}", file=sys.stderr)
    return 1 if failures or ended is not None else 0


def _errors_below(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(root.glob(f"*/{ERROR_FILE}")):
        with contextlib.suppress(OSError, ValueError):
            yield path, json.loads(path.read_text())


def _root(overrides: Sequence[str]) -> Path:
    given = [word.partition("=")[2].strip("'\"") for word in overrides if word.startswith("out=")]
    return Path(given[-1] if given else "runs")


@contextlib.contextmanager
def _quiet_hydra() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="hydra")
        yield
