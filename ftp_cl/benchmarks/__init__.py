"""Streams for continual learning with unseen domains: datasets, and Avalanche benchmarks made from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ftp_cl.benchmarks.digits import Digits, split_digits
from ftp_cl.benchmarks.emoji import split_emoji
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, EmojiDomains
from ftp_cl.benchmarks.registry import BENCHMARK_DESCRIPTIONS, BENCHMARKS, build_benchmark

if TYPE_CHECKING:
    from ftp_cl.benchmarks.corruptions import CORRUPTIONS, CorruptedDataset, corrupt, with_corruptions
    from ftp_cl.benchmarks.ood import with_ood

__all__ = [
    "BENCHMARKS",
    "BENCHMARK_DESCRIPTIONS",
    "CLASSES",
    "CORRUPTIONS",
    "DOMAINS",
    "CorruptedDataset",
    "Digits",
    "EmojiDomains",
    "build_benchmark",
    "corrupt",
    "split_digits",
    "split_emoji",
    "with_corruptions",
    "with_ood",
]

# These import Avalanche, which takes seconds that users of the datasets alone need not wait.
_LATE = {
    "CORRUPTIONS": "corruptions",
    "CorruptedDataset": "corruptions",
    "corrupt": "corruptions",
    "with_corruptions": "corruptions",
    "with_ood": "ood",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
