"""The demo: what FTP does on a small stream, beside what it should be compared with."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ftp_cl.runs.imports import without_collections
from ftp_cl.runs.text import printable

if TYPE_CHECKING:
    from ftp_cl.study.loading import Result

COMMON = ["benchmark=split_emoji", "benchmark.size=48", "seed=0"]

FTP = "FTP, one rate 3e-3"
RUNS = {
    "fine-tuning, one rate 3e-3": ["method=naive"],
    "fine-tuning, backbone rate tuned to 3e-5": ["method=naive", "optimizer.backbone_lr=3e-5"],
    "frozen features + LDA": ["method=lda"],
    FTP: ["method=ftp"],
}

WHAT_IS_COMPARED = (
    "FTP is compared with fine-tuning at the same learning rate, fine-tuning at a tuned rate, and frozen features with "
    "linear discriminant analysis (LDA): 20 classes of emoji in 5 tasks, no stored images, EfficientNet-Lite0 from "
    "ImageNet, one seed."
)


def demo(out: Path) -> None:
    """Run four methods on split_emoji with one seed, write the report, and print the table.

    Runs that are finished already are kept.
    """
    console = Console()
    start = time.perf_counter()
    console.print(WHAT_IS_COMPARED, highlight=False)
    console.print("Loading PyTorch and Avalanche ...", highlight=False)  # up to 20 seconds on a busy machine
    from ftp_cl.runs.config import load_config

    with without_collections():
        from ftp_cl.runs.run import run
    from ftp_cl.study.loading import load_results
    from ftp_cl.study.tables import terminal_table
    from ftp_cl.study.write import write_figure, write_report

    directories = []
    for label, overrides in RUNS.items():
        directories.append(out / "runs" / label.replace(" ", "_").replace(",", ""))
        run(load_config([*COMMON, *overrides, f"label='{label}'"]), directories[-1])
    results = load_results(directories)
    paths = write_report(directories, out)
    write_figure(results, out / "figure.svg")
    console.print(terminal_table(results))
    place = printable(paths.html)
    console.print(f"{time.perf_counter() - start:.0f} s. The whole report: {place}", highlight=False, markup=False)
    console.print(what_it_shows({str(result.config["label"]): result for result in results}), highlight=False)


def what_it_shows(results: "dict[str, Result]") -> str:
    """The result in a sentence: FTP's lead over each other method, by label.

    Args:
        results: of the runs, by label.
    """
    numbers: dict[str, tuple[float, Any]] = {
        label: (of.average_accuracy, of.ood_average) for label, of in results.items()
    }
    accuracy, ood = numbers.pop(FTP)
    leads = [
        f"{accuracy - other:+.1f} ({ood - other_ood:+.1f}) over {label}"
        for label, (other, other_ood) in numbers.items()
    ]
    return (
        f"FTP's lead in points of average accuracy (and of OOD accuracy): {'; '.join(leads)}. "
        "One seed: a few points mean little. results/ in the repository has more seeds."
    )
