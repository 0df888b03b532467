"""Synthetic runs in the format of result.json and metrics.jsonl, made from a few numbers."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftp_cl.metrics import summarize

TENSORS = ["conv_stem.weight", "blocks.0.conv_dw.weight", "blocks.1.conv_pwl.weight", "conv_head.weight"]
OOD_STREAMS = ("ood_blob", "ood_twemoji", "ood_line_art")


def synthetic_matrix(rng: np.random.Generator, experiences: int, start: float, loss: float) -> list[list[float | None]]:
    """Accuracies that start at `start` and lose about `loss` points with every later experience."""
    matrix: list[list[float | None]] = []
    for i in range(experiences):
        seen = [float(np.clip(start - loss * (i - j) + rng.normal(0, 2), 0, 100)) for j in range(i + 1)]
        matrix.append([*seen, *[None] * (experiences - i - 1)])
    return matrix


def synthetic_projection(rng: np.random.Generator, tensors: list[str]) -> dict[str, dict[str, float]]:
    radii = rng.lognormal(-3, 0.5, len(tensors))
    return {
        name: {"radius": r, "mean_distance": 0.6 * r, "max_distance": r, "boundary_share": 0.4}
        for name, r in zip(tensors, radii.tolist(), strict=True)
    }


def make_result(
    method: str = "naive",
    seed: int = 0,
    experiences: int = 5,
    start: float = 80.0,
    loss: float = 8.0,
    ood: tuple[str, ...] = OOD_STREAMS,
    tensors: list[str] | None = None,
    config: dict[str, Any] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """The content of a valid result.json; `overrides` replace whole keys."""
    rng = np.random.default_rng([seed, experiences, zlib.crc32(method.encode())])
    shift = {stream: max(0.0, float(start - 25 - 6 * i - loss + rng.normal(0, 2))) for i, stream in enumerate(ood)}
    result = {
        "schema": "ftp_cl.result/1",
        "benchmark": "emoji_domains",
        "method": method,
        "model": "efficientnet_lite0",
        "seed": seed,
        "config": {"seed": seed, "out": f"runs/{method}/{seed}", "epochs": 3, **(config or {})},
        **summarize(synthetic_matrix(rng, experiences, start, loss), shift),
        "train_seconds": 30.0 + seed,
        "step_seconds_median": 0.012,
        "peak_memory_mb": 512.0,
        "environment": {"python": "3.11.2", "torch": "2.14.1", "platform": "Linux", "cpu": "some CPU", "threads": 2},
        "classes_per_experience": [[f"class {i}"] for i in range(experiences)],
        "projection": synthetic_projection(rng, tensors or []),
        "data": {
            "experiences": [{"classes": [i]} for i in range(experiences)],
            "stream_sizes": {stream: [10 * (i + 1) for i in range(experiences)] for stream in ("test", *ood)},
        },
    }
    return {**result, **overrides}


def write_run(directory: Path, **arguments: Any) -> Path:
    """Write a run directory with a result.json and, for projecting methods, a metrics.jsonl; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    result = make_result(**arguments)
    (directory / "result.json").write_text(json.dumps(result), encoding="utf-8")
    if result["projection"]:
        rng = np.random.default_rng(result["seed"])
        events = [{"event": "train", "experience": 0, "epoch": 0, "iteration": 0, "loss": 1.0, "seconds": 0.1}]
        for experience in range(len(result["accuracy_matrix"])):
            tensors = synthetic_projection(rng, list(result["projection"]))
            events.append({"event": "projection", "experience": experience, "tensors": tensors})
        lines = "".join(json.dumps(event) + "\n" for event in events)
        (directory / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return directory


def write_runs(root: Path) -> Path:
    """Three methods, three seeds each, of which one projects."""
    for seed in range(3):
        write_run(root / f"naive-{seed}", method="naive", seed=seed, loss=12)
        write_run(root / f"ewc-{seed}", method="ewc", seed=seed, loss=10)
        write_run(root / f"ftp-{seed}", method="ftp", seed=seed, loss=4, start=85, tensors=TENSORS)
    return root


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """`write_runs`."""
    return write_runs(tmp_path / "runs")


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """Their report, to be read only."""
    from ftp_cl.study.write import write_report

    root = tmp_path_factory.mktemp("report")
    return write_report([write_runs(root / "runs")], root / "out")


@pytest.fixture
def make_run():
    """`write_run`, for tests that need runs of their own (tests are no package, so they cannot import it)."""
    return write_run


@pytest.fixture
def result_content():
    """`make_result`, likewise."""
    return make_result


@pytest.fixture
def row_content():
    """The keys of the result of a run with one experience: `row_content(seed, accuracy, config)`."""

    def make(seed, accuracy, config=None):
        return {
            **dict.fromkeys(("benchmark", "method", "model"), "any"),
            **{"schema": "ftp_cl.result/1", "seed": seed, "config": config or {}},
            **summarize([[accuracy]], {"ood_blob": 30.0}),
            **{"classes_per_experience": [["fox"]], "projection": {"weight": {}}, "environment": {}},
            **{"train_seconds": 1.0, "step_seconds_median": None, "peak_memory_mb": None},
        }

    return make
