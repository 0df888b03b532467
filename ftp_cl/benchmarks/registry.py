"""Benchmarks by name, for configurations and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftp_cl.benchmarks._checks import check_choice
from ftp_cl.benchmarks.cifar import split_cifar10, split_cifar100
from ftp_cl.benchmarks.core50 import core50
from ftp_cl.benchmarks.digits import split_digits
from ftp_cl.benchmarks.domainnet import domainnet, domainnet_domains
from ftp_cl.benchmarks.emoji import emoji_styles, split_emoji
from ftp_cl.benchmarks.fashion_mnist import split_fashion_mnist
from ftp_cl.benchmarks.folder import image_folder
from ftp_cl.benchmarks.imagenet_r import split_imagenet_r
from ftp_cl.benchmarks.tiny_imagenet import split_tiny_imagenet

if TYPE_CHECKING:
    from ftp_cl.benchmarks.scenario import DescribedScenario

BENCHMARKS: dict[str, Callable[..., DescribedScenario]] = {
    "core50": core50,
    "domainnet": domainnet,
    "domainnet_domains": domainnet_domains,
    "emoji_styles": emoji_styles,
    "image_folder": image_folder,
    "split_cifar10": split_cifar10,
    "split_cifar100": split_cifar100,
    "split_digits": split_digits,
    "split_emoji": split_emoji,
    "split_fashion_mnist": split_fashion_mnist,
    "split_imagenet_r": split_imagenet_r,
    "split_tiny_imagenet": split_tiny_imagenet,
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
