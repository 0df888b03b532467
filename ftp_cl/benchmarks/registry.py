"""Benchmarks by name, for configurations and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftp_cl.benchmarks._checks import check_choice
from ftp_cl.benchmarks.digits import split_digits
from ftp_cl.benchmarks.emoji import split_emoji

if TYPE_CHECKING:
    from ftp_cl.benchmarks.scenario import DescribedScenario

BENCHMARKS: dict[str, Callable[..., DescribedScenario]] = {
    "split_digits": split_digits,
    "split_emoji": split_emoji,
}
"""Functions that build a benchmark, by name; see ``build_benchmark``."""

BENCHMARK_DESCRIPTIONS: dict[str, str] = {
    name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in BENCHMARKS.items()
}
"""One line on each of ``BENCHMARKS``, the first of its docstring."""


def build_benchmark(name: str, /, **options: Any) -> DescribedScenario:
    """Build the benchmark ``name`` of ``BENCHMARKS`` with the options of its function.

    Raises:
        ValueError: for a name or an option that does not exist, naming the nearest, or a value that is out of range.
    """
    check_choice("benchmark", name, list(BENCHMARKS))
    parameters = list(inspect.signature(BENCHMARKS[name]).parameters)
    for option in options:
        check_choice(f"option of {name}", option, parameters)
    return BENCHMARKS[name](**options)
