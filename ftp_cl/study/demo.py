"""The demo: what FTP does on a small stream, beside what it should be compared with."""

import time
from pathlib import Path

from rich.console import Console

from ftp_cl.runs.config import load_config
from ftp_cl.runs.run import run
from ftp_cl.runs.text import printable
from ftp_cl.study.loading import load_results
from ftp_cl.study.tables import terminal_table
from ftp_cl.study.write import write_figure, write_report

COMMON = ["benchmark=split_emoji", "benchmark.size=48", "seed=0"]

RUNS = {
    "fine-tuning, one rate 3e-3": ["method=naive"],
    "fine-tuning, backbone rate tuned to 3e-5": ["method=naive", "optimizer.backbone_lr=3e-5"],
    "FTP, one rate 3e-3": ["method=ftp"],
    "FTP + LDA ensemble": ["method=ftp_lda_ensemble"],
    "frozen features + LDA": ["method=slda"],
}

WHAT_IT_SHOWS = (
    "What this shows: five experiences of four classes each, no stored images, EfficientNet-Lite0 from ImageNet. At "
    "one learning rate for everything, plain fine-tuning destroys the pretrained features; FTP at the same rate keeps "
    "them, and needs no search for a backbone rate. Frozen features with linear discriminant analysis (LDA) are hard "
    "to beat on a stream this small; in the ensemble they decide together with what FTP has trained.",
    "What it does not show: that FTP alone is more accurate than fine-tuning whose backbone rate was tuned, as it was "
    "here on the validation stream of other seeds. One seed: differences of a few points mean little; results/ has "
    "tables over ten.",
)


def demo(out: Path) -> None:
    """Run five methods on split_emoji with one seed, write the report, and print the table.

    Runs that are finished already are kept.
    """
    console = Console()
    start = time.perf_counter()
    directories = []
    for label, overrides in RUNS.items():
        directories.append(out / "runs" / label.replace(" ", "_").replace(",", ""))
        run(load_config([*COMMON, *overrides, f"label='{label}'"]), directories[-1])
    results = load_results(directories)
    paths = write_report(directories, out)
    write_figure(results, out / "figure.svg")
    console.print(terminal_table(results))
    for paragraph in WHAT_IT_SHOWS:
        console.print(paragraph, highlight=False)
    place = printable(paths.html)
    console.print(f"{time.perf_counter() - start:.0f} s. The whole report: {place}", highlight=False, markup=False)
