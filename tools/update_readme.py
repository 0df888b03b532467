"""Puts generated tables and figures into README.md and docs/configuration.md, between markers.

`python tools/update_readme.py --demo demo` takes the table and the figure of a finished demo, and `--results` the
comparison in short, from results/comparison. `--configuration` takes the table of keys from the schema.
"""

import argparse
import shutil
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import mean_over_settings
from ftp_cl.study.store import Store

ROOT = Path(__file__).parents[1]
RESULTS = Store(ROOT / "results" / "comparison")
TUNED = {
    "class_incremental": "class-incremental, 5 experiences",
    "class_incremental_10": "class-incremental, 10 experiences",
    "domain_incremental": "domain-incremental, 4 styles",
    "robust": "one task, 20 classes",
    "shots_4": "one task, 4 shots per class",
}
TRANSFERRED = {
    "class_incremental_twemoji": "class-incremental, twemoji's style",
    "domain_incremental_others": "domain-incremental, other styles",
    "robust_twemoji": "one task, twemoji's style",
    "robust_line_art": "one task, line art",
    "class_incremental_lite2": "class-incremental, EfficientNet-Lite2, 64 px",
    "domain_incremental_lite2": "domain-incremental, EfficientNet-Lite2, 64 px",
    "robust_lite2": "one task, EfficientNet-Lite2, 64 px",
}
OTHER_DATA = {
    "class_incremental_digits": "class-incremental, 5 experiences of 2 digits",
    "robust_digits": "one task, 10 digits",
}
METHODS = {
    "naive": "fine-tuning",
    "naive_warmup": "fine-tuning + warm-up",
    "l2_sp": "L2-SP",
    "lda": "frozen + LDA",
    "lda_ensemble": "fine-tuning + LDA ensemble",
    "ftp_default": "FTP, as it comes¹",
    "ftp_lda_ensemble_default": "FTP + LDA ensemble, as it comes¹",
    "ftp": "FTP²",
    "ftp_warmup": "FTP + warm-up²",
    "ftp_lda_ensemble": "FTP + LDA ensemble²",
}

RECIPE = "ftp_lda_ensemble_default"


def show_demo(demo: Path) -> str:
    """The demo's table, and its figure, which goes to docs/figures."""
    table = [line for line in (demo / "report.md").read_text().splitlines() if not line.startswith("#")]
    figure = ROOT / "docs" / "figures" / "demo.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(demo / "figure.svg", figure)
    image = "![Accuracy after each experience, and in other styles](docs/figures/demo.svg)"
    return "\n".join(table).strip() + f"\n\n{image}"


def show_results(settings: dict[str, str]) -> str:
    """Mean accuracy and OOD average of each method in these settings, over the seeds that all methods have."""
    values: dict[tuple[str, str], dict[int, tuple[float, float]]] = defaultdict(dict)
    for run in RESULTS.runs():
        values[run["setting"], run["row"]][run["seed"]] = run["average_accuracy"], run["ood_average"]
    common = {setting: set.intersection(*(set(values[setting, name]) for name in METHODS)) for setting in settings}
    shown = [setting for setting in settings if common[setting]]
    rows = [["method", *(f"{settings[setting]} (n = {len(common[setting])})" for setting in shown)]]
    for method, name in METHODS.items():
        rows.append([name, *(_cell([values[setting, method][seed] for seed in common[setting]]) for setting in shown)])
    return _markdown(rows)


def show_mean() -> str:
    """The mean over the settings of `TUNED`, and what the recommended recipe is ahead by."""
    heads, rows = mean_over_settings(load_plan(), RESULTS)
    shown = [i for i, head in enumerate(heads) if not head.endswith("to ftp")]
    first = ["method", *(heads[i].replace(RECIPE, "the first row") for i in shown)]
    names = [RECIPE, *(name for name in rows if name in METHODS and name != RECIPE)]
    return _markdown([first, *([METHODS[name], *(rows[name][i] for i in shown)] for name in names)])


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _cell(pairs: list[tuple[float, float]]) -> str:
    return " / ".join(f"{statistics.fmean(values):.1f}" for values in zip(*pairs, strict=True))


def insert(name: str, text: str, file: str = "README.md") -> None:
    """Replace what stands between the two markers of that name."""
    page, begin, end = ROOT / file, f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{file} lacks the lines {begin} and {end}.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Insert what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, metavar="DIR", help="of a finished demo")
    parser.add_argument("--results", action="store_true")
    parser.add_argument("--configuration", action="store_true")
    arguments = parser.parse_args()
    if arguments.demo:
        insert("demo", show_demo(arguments.demo))
    if arguments.configuration:
        insert("keys", table_of_keys(), "docs/configuration.md")
    if arguments.results:
        insert("results", show_results(TUNED))
        insert("results elsewhere", show_results(TRANSFERRED))
        insert("results digits", show_results(OTHER_DATA))
        insert("mean", show_mean())


if __name__ == "__main__":
    main()
