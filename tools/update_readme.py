"""Puts generated tables and figures into README.md and docs/configuration.md, between markers.

`python tools/update_readme.py --demo demo` takes the table and figure of a finished demo, `--results` the comparison
in which every method has the same budget and one set of values for all settings, from results/defaults.
`--configuration` takes the table of keys from the schema.
"""

import argparse
import shutil
import sys
from pathlib import Path

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.loading import load_results
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import mean_over_settings
from ftp_cl.study.store import Store

ROOT = Path(__file__).parents[1]
METHODS = {"naive": "fine-tuning", "lda": "frozen features + LDA", "ftp": "FTP"}


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


if __name__ == "__main__":
    main()
