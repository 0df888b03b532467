"""Streams for continual learning with unseen domains: datasets, and Avalanche benchmarks made from them."""

from ftp_cl.benchmarks.digits import Digits, split_digits
from ftp_cl.benchmarks.emoji import split_emoji
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, EmojiDomains
from ftp_cl.benchmarks.registry import BENCHMARK_DESCRIPTIONS, BENCHMARKS, build_benchmark

__all__ = [
    "BENCHMARKS",
    "BENCHMARK_DESCRIPTIONS",
    "CLASSES",
    "DOMAINS",
    "Digits",
    "EmojiDomains",
    "build_benchmark",
    "split_digits",
    "split_emoji",
]
