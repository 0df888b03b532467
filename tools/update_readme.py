"""Puts generated tables into README.md, docs/configuration.md and results/findings.md, between markers.

`python tools/update_readme.py --demo demo` takes the table of a finished demo. `--results` takes the comparison with
one set of values for all settings from results/defaults, split CIFAR-100 from results/cifar100, and what rows of FTP
are ahead of and behind in each setting.
`--configuration` takes the table of keys from the schema.
"""

import argparse
import csv
import sys
from pathlib import Path

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.aggregate import Spread
from ftp_cl.study.loading import load_results
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import differences, mean_over_settings
from ftp_cl.study.store import RUNS_FILE, Store

ROOT = Path(__file__).parents[1]
MEASURES = {"average_accuracy": "accuracy", "ood_average": "OOD"}
METHODS = {
    "naive": "fine-tuning",
    "lda": "frozen features + LDA",
    "ftp": "FTP",
    "ftp_ranpac": "FTP in the first task, then RanPAC",
    "naive, backbone rate 3e-5": "fine-tuning, backbone rate 3e-5",
}
OF_STREAMS = {
    "average_accuracy": "accuracy",
    "average_incremental_accuracy": "incremental accuracy",
    "average_forgetting": "forgetting",
}


def show_demo(demo: Path) -> str:
    """The numbers of the demo in short."""
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
    rows = [["method", *OF_STREAMS.values(), "n"]]
    runs = Store(ROOT / "results" / "cifar100").frame(RUNS_FILE)
    for (name,), of_row in sorted(runs.group_by("row"), key=lambda item: -item[1]["average_accuracy"].mean()):
        cells = [Spread.of(of_row[measure].to_list()).text() for measure in OF_STREAMS]
        rows.append([METHODS[name], *cells, str(of_row.height)])
    return _markdown(rows)


def show_findings(plan: str) -> str:
    """What each row with FTP is ahead of, level with and behind in each setting, among the rows without FTP."""
    found: dict[tuple[str, str, str], list[list[str]]] = {}
    for line in csv.DictReader(differences(Store(ROOT / "results" / plan)).splitlines()):
        ends = [float(line[end]) for end in ("difference", "low", "high")]
        row, other, measure = line["row"], line["reference"], MEASURES.get(line["measure"])
        if "ftp" in other:
            row, other, ends = other, row, [-ends[0], -ends[2], -ends[1]]
        if "ftp" not in row or "ftp" in other or measure is None:
            continue
        text = f"{other} {ends[0]:+.1f} [{ends[1]:.1f}, {ends[2]:.1f}]"
        place = 0 if ends[1] > 0 else 2 if ends[2] < 0 else 1
        found.setdefault((line["setting"], row, measure), [[], [], []])[place].append(other if place == 1 else text)
    heads = ["setting", "row", "measure", "ahead of", "level with", "behind"]
    return _markdown([heads, *([*key, *(", ".join(cell) for cell in cells)] for key, cells in sorted(found.items()))])


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
        for plan in ("defaults", "comparison", "few_labels"):
            insert(plan, show_findings(plan), "results/findings.md")


if __name__ == "__main__":
    main()
