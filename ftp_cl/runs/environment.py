"""What a number was made with: versions, hardware, commit, memory."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("ftp-cl", "torch", "torchvision", "avalanche-lib", "timm", "numpy", "scikit-learn")

version_of = cache(version)
"""The version of a package, which is looked for on disk once in a process."""


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor, device, threads, and the git commit if ftp_cl runs from a checkout."""
    return {
        "python": platform.python_version(),
        **{package: version_of(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _told_by_linux("cpuinfo", "model name") or platform.processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "git_commit": _commit(),
    }


def set_deterministic(on: bool) -> None:
    """Let torch use deterministic algorithms only, or any; an operation that has none raises."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(on)


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mb` count from now on, where the system can: on CUDA devices and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory since `forget_peak_memory`, MiB: of tensors on a CUDA device, of the whole process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if told := _told_by_linux("self/status", "VmHWM"):
        return int(told.split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _told_by_linux(file: str, key: str) -> str | None:
    """What the first line of this key in a file of /proc says; None on other systems."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", file).read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return None


def _commit() -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    run = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return run.stdout.strip() or None
