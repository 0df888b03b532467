"""Every benchmark has a configuration, and every configuration fits its benchmark."""

import inspect
from pathlib import Path

import pytest
import yaml

from ftp_cl.benchmarks import BENCHMARK_DESCRIPTIONS, BENCHMARKS

CONFIGS = Path(__file__).parents[2] / "configs" / "benchmark"


def test_benchmarks_and_configurations_have_the_same_names():
    own = {"own"}  # a user's, by import path
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(BENCHMARKS) | own


@pytest.mark.parametrize("name", BENCHMARKS)
def test_configuration_begins_with_its_command_and_holds_options_at_their_defaults(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    command, description = text.splitlines()[:2]
    assert command.startswith(f"# ftp-cl run benchmark={name}")
    assert description.startswith("# ") and description.endswith(".")
    options = yaml.safe_load(text)
    assert options.pop("name") == name
    parameters = inspect.signature(BENCHMARKS[name]).parameters
    assert options.keys() <= parameters.keys() - {"seed"}
    for key, value in options.items():
        default = parameters[key].default
        expected = list(default) if isinstance(default, tuple) else default
        assert value in (expected, [expected], "???"), key


@pytest.mark.parametrize("name", BENCHMARKS)
def test_docstring_describes_every_option_and_its_first_line_fits_a_list(name):
    documentation = inspect.getdoc(BENCHMARKS[name])
    if "Everything is as in" not in documentation:
        for option in inspect.signature(BENCHMARKS[name]).parameters:
            assert f"{option}:" in documentation, option
    assert BENCHMARK_DESCRIPTIONS[name].endswith(".") and len(BENCHMARK_DESCRIPTIONS[name]) < 120
