"""The package as a whole: what it installs, and that imports point down only."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

import ftp_cl

PACKAGE = Path(ftp_cl.__file__).parent
ROOT = Path(__file__).parents[1]
ALLOWED = {
    "projection": {"projection"},
    "optim": {"projection", "optim"},
    "integrations": {"projection", "optim", "integrations"},
    "benchmarks": {"benchmarks"},
    "metrics": {"metrics"},
    "models": {"models", "benchmarks"},  # what an item of text is
    "plugins": {"projection", "optim", "models", "benchmarks", "metrics", "plugins"},
    "runs": {"projection", "optim", "models", "benchmarks", "metrics", "plugins", "runs", "configs"},
    "study": {"metrics", "runs", "study", "configs"},
}


def imported_parts(file):
    """The parts of ftp_cl that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ftp_cl."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ftp_cl."))


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down_only(part):
    for file in (PACKAGE / part).rglob("*.py"):
        assert set(imported_parts(file)) <= ALLOWED[part], file


def normal(name):
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def modules_imported(files):
    """Top-level names of other packages, with the file, anywhere in it."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ftp_cl"}:
                yield name, file


def names_of(requirements):
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = names_of(sum(project["optional-dependencies"].values(), project["dependencies"]))
    brought = {"triton": "torch", "llvmlite": "numba"}  # in the version that it needs
    owners = packages_distributions()
    for module, file in modules_imported(PACKAGE.rglob("*.py")):
        packages = {normal(name) for name in owners.get(module, [])} | {brought.get(module, module)}
        # What is not installed here is declared under a name that begins alike: mlflow-skinny.
        assert packages & declared or any(name.startswith(f"{module}-") for name in declared), (file, module)


def test_the_job_without_pins_installs_what_its_tests_import():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    job = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    extras, others, folders = re.search(r'pip install "\.\[(.+)\]" ?(.*) && .* "not slow" (.+)', job).groups()
    given = names_of(sum((project["optional-dependencies"][name] for name in extras.split(",")), others.split()))
    given |= names_of(project["dependencies"])
    pinned = names_of(re.findall(r"^.+(?===)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    owners = packages_distributions()
    files = [
        ROOT / "tests" / "conftest.py",
        *(file for name in folders.split() for file in (ROOT / name).rglob("*.py")),
    ]
    for module, file in modules_imported(files):
        assert {normal(name) for name in owners.get(module, [])} & pinned <= given, (file, module)


def test_every_part_is_listed_here():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(ALLOWED)


def test_nobody_waits_for_a_library_that_is_not_used():
    """Torch and Avalanche take seconds each. One process, because starting it does, too."""
    code = """if True:
        import sys
        def load(modules, *without):
            for module in modules:
                __import__(module)
                assert not set(without) & set(sys.modules), (module, without)
        load(["ftp_cl", "ftp_cl.metrics"], "torch", "avalanche", "scipy")
        load(["ftp_cl.cli", "ftp_cl.runs.output", "ftp_cl.study.plan"], "torch", "avalanche")
        load(["ftp_cl.study.tables", "ftp_cl.study.write"], "torch", "avalanche", "matplotlib", "polars")
        assert sys.modules["ftp_cl"].FTP
        load(["ftp_cl.optim", "ftp_cl.benchmarks"], "avalanche")
        sys.modules["ftp_cl.benchmarks"].EmojiDomains("noto", "test")
        assert "avalanche" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_two_shortcuts_are_the_classes():
    from ftp_cl import FTP, FTPPlugin
    from ftp_cl.optim import FTP as InOptim
    from ftp_cl.plugins import FTPPlugin as InPlugins

    assert (FTP, FTPPlugin) == (InOptim, InPlugins)


def test_configurations_are_installed_with_the_package():
    from ftp_cl.runs.catalogue import config_directory, options_of

    assert (config_directory() / "config.yaml").exists()
    assert "split_emoji" in options_of("benchmark")


@pytest.mark.parametrize("group", ["benchmark", "method", "model"])
def test_each_configuration_begins_with_the_command_that_runs_it(group):
    from ftp_cl.runs.catalogue import config_directory, entry

    for file in (config_directory() / group).glob("*.yaml"):
        command = file.read_text().partition("\n")[0]
        assert command.startswith("# ftp-cl run ") and f"{group}={file.stem}" in command, file
        description = entry(group, file.stem).description
        assert description.endswith(".") and len(description) < 120, file


def test_version_is_told_once():
    assert version("ftp-cl") == ftp_cl.__version__
