"""Puts generated tables and figures into README.md and docs/configuration.md, between markers.

`python tools/update_readme.py --demo demo` takes the table and figure of a finished demo, `--results` the comparison
in which every method has the same budget and one set of values for all settings, from results/defaults, and split
CIFAR-100, from results/cifar100.
`--configuration` takes the table of keys from the schema.
"""

import argparse
import shutil
import sys
from pathlib import Path

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.aggregate import Spread
from ftp_cl.study.loading import load_results
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import mean_over_settings
from ftp_cl.study.rows import RUNS_FILE
from ftp_cl.study.store import Store

ROOT = Path(__file__).parents[1]
METHODS = {
    "naive": "fine-tuning",
    "lda": "frozen features + LDA",
    "ftp": "FTP",
    "ftp_ranpac": "FTP in the first task, then RanPAC",
    "naive, backbone rate 3e-5": "fine-tuning, backbone rate 3e-5",
}
MEASURES = {
    "average_accuracy": "accuracy",
    "average_incremental_accuracy": "incremental accuracy",
    "average_forgetting": "forgetting",
}


def show_demo(demo: Path) -> str:
    """The numbers of the demo in short; its figure goes to docs/figures."""
    figure = ROOT / "docs" / "figures" / "demo.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(demo / "figure.svg", figure)
    rows = [["method", "accuracy (%)", "OOD (%)", "forgetting (points)"]]
    for result in sorted(load_results([demo / "runs"]), key=lambda result: -result.average_accuracy):
        numbers = (result.average_accuracy, result.ood_average, result.average_forgetting)
        rows.append([str(result.config["label"]), *(f"{number:.1f}" for number in numbers)])
    return _markdown(rows)


def show_mean() -> str:
    """The mean over all settings of results/defaults, and what FTP is ahead by."""
    heads, rows = mean_over_settings(load_plan("defaults"), Store(ROOT / "results" / "defaults"))
    return _markdown([["method", *heads], *([METHODS[name], *rows[name]] for name in rows)])


def show_cifar100() -> str:
    """Mean and deviation over the seeds of results/cifar100, the highest accuracy first."""
    rows = [["method", *MEASURES.values(), "n"]]
    runs = Store(ROOT / "results" / "cifar100").frame(RUNS_FILE)
    for (name,), of_row in sorted(runs.group_by("row"), key=lambda item: -item[1]["average_accuracy"].mean()):
        rows.append(
            [METHODS[name], *(Spread.of(of_row[each].to_list()).text() for each in MEASURES), str(of_row.height)]
        )
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


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
        insert("mean", show_mean())
        insert("cifar100", show_cifar100())


if __name__ == "__main__":
    main()
