"""Many runs from one command line, through Hydra's multirun: sweepers and launchers are Hydra's."""

import sys
from pathlib import Path
from unittest.mock import patch

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftp_cl.experiment.config import check, config_directory


def run_many(overrides: list[str]) -> None:
    """Run all combinations of the values in `overrides`, each in a directory of its own."""
    command = ["ftp-cl run", "--multirun", *overrides]
    with patch.object(sys, "argv", command):
        hydra.main(version_base="1.3", config_path=str(config_directory().resolve()), config_name="config")(_job)()


def _job(config: DictConfig) -> None:
    from ftp_cl.experiment.record import run_directory
    from ftp_cl.experiment.run import run

    check(config)
    own = run_directory(HydraConfig.get().overrides.task)
    run(config, Path(config.out) / own.name if config.out else own)
