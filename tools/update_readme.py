"""Puts generated tables into README.md, docs/configuration.md and results/findings.md, between markers.

`python tools/update_readme.py --demo demo` takes the table of a finished demo. `--results` takes the comparison with
one set of values for all settings from results/defaults, split CIFAR-100 from results/cifar100, what rows of FTP are
ahead of and behind in each setting, and what a step costs from docs/speed.md.
`--configuration` takes the table of keys from the schema.
"""

import argparse
import re
import sys
from functools import cache
from pathlib import Path

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.aggregate import Spread
from ftp_cl.study.loading import load_results
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import each_difference, mean_over_settings
from ftp_cl.study.store import RUNS_FILE, Store

ROOT = Path(__file__).parents[1]
MEASURES = {"average_accuracy": "accuracy", "ood_average": "OOD"}
METHODS = {
    "naive": "fine-tuning",
    "lda": "frozen features + LDA",
    "ftp": "FTP",
    "ranpac": "frozen features + RanPAC",
    "ftp_ranpac": "FTP in the first task, then RanPAC",
    "naive, backbone rate 3e-5": "fine-tuning, backbone rate 3e-5",
}
OF_STREAMS = {
    "average_accuracy": "accuracy",
    "average_incremental_accuracy": "incremental accuracy",
    "average_forgetting": "forgetting",
}

# What README says of wins and losses: plan, setting, row, what it is compared with, and this in words.
COMPARED = [
    ("comparison", "robust", "ftp", "naive", "fine-tuning, one task"),
    ("comparison", "domain_incremental", "ftp", "naive", "fine-tuning, one style after another"),
    ("cifar100", "class_incremental", "ftp", "naive, backbone rate 3e-5", "fine-tuning, split CIFAR-100, untuned"),
    ("cifar100", "class_incremental", "ftp", "lda", "frozen features + LDA, split CIFAR-100"),
    (
        "text",
        "text",
        "ftp on lora, 1e-2",
        "lora, 1e-2",
        "LoRA at 1e-2, where it collapses, [names of emoji](docs/text.md)",
    ),
    ("text", "text", "ftp on lora, 1e-3", "naive, 1e-5", "fine-tuning at its best rate, names of emoji"),
    ("comparison", "robust_digits", "ftp", "naive_warmup", "fine-tuning with warm-up, digits, one task"),
    ("comparison", "class_incremental", "ftp", "lda", "frozen features + LDA, emoji in 5 tasks"),
    ("comparison", "class_incremental_10", "ftp", "lda", "the same, 10 tasks"),
    ("comparison", "robust", "ftp", "naive_warmup", "fine-tuning with warm-up, one task"),
]
VERDICTS = {(True, False): "Wins", (True, True): "Wins and loses", (False, True): "Loses", (False, False): "Undecided"}
COSTS = """\
**What it costs.** On a CPU with Numba (`.[fast]`), an optimizer step takes {numba:.1f} times as long as fused AdamW's,
in one pass {numba, one pass:.1f} times; in plain torch {torch, hooks:.1f} times. Whole iterations took
{iterations:.2f} times as long ([docs/speed.md](docs/speed.md)). Not measured on a GPU yet."""


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


def show_wins_and_losses() -> str:
    """The comparisons of `COMPARED`, a line each, and what FTP's default values lose to tuned ones."""
    lines = []
    for plan, *names, words in COMPARED:
        found = [(measure, ends, n) for *rows, measure, ends, n in _differences(plan) if rows == names]
        verdict = VERDICTS[any(ends[1] > 0 for _, ends, _ in found), any(ends[2] < 0 for _, ends, _ in found)]
        numbers = ", ".join(f"{measure} {_bold(ends)}" for measure, ends, _ in found)
        seeds = found[0][-1]
        lines.append((verdict, f"against {words}: {numbers}{'' if seeds == 10 else f' ({seeds} seeds)'}."))
    (name, *_), rows = mean_over_settings(load_plan("recommended"), Store(ROOT / "results" / "recommended"))
    default = f"validation {name} {rows['published'][1]}"
    lines.append(("Loses", f"with default values against [tuned ones](results/recommended/README.md): {default}."))
    lines.sort(key=lambda line: list(VERDICTS.values()).index(line[0]))
    return "\n".join(f"- **{verdict}** {text}" for verdict, text in lines)


def show_costs() -> str:
    """The smallest and the largest multiples in the tables of docs/speed.md."""
    steps, iterations = _multiples("models"), _multiples("iterations")
    whole = [number for head, numbers in iterations.items() if head != "TPGM" for number in numbers]
    ranges = {head: (min(all_of), max(all_of)) for head, all_of in {**steps, "iterations": whole}.items() if all_of}
    return re.sub(
        r"\{(.+?)(:.+?)\}", lambda found: " to ".join(f"{{{found[2]}}}".format(end) for end in ranges[found[1]]), COSTS
    )


def _multiples(table: str) -> dict[str, list[float]]:
    """The cells such as 1.95x of a table of docs/speed.md, by the head of their column."""
    _, _, rest = (ROOT / "docs" / "speed.md").read_text().partition(f"<!-- {table}: begin -->")
    lines = [line.strip("|").split("|") for line in rest.partition("<!--")[0].splitlines() if line.startswith("|")]
    columns = {head.strip(): [cell.strip() for cell in cells] for head, *cells in zip(*lines, strict=True)}
    return {head: [float(cell[:-1]) for cell in cells if cell.endswith("x")] for head, cells in columns.items()}


def show_findings(plan: str) -> str:
    """What each row with FTP is ahead of, level with and behind in each setting, among the rows without FTP."""
    found: dict[tuple[str, str, str], list[list[str]]] = {}
    for setting, row, other, measure, ends, _ in _differences(plan):
        if "ftp" in row and "ftp" not in other:
            place = 0 if ends[1] > 0 else 2 if ends[2] < 0 else 1
            text = other if place == 1 else f"{other} {_interval(ends)}"
            found.setdefault((setting, row, measure), [[], [], []])[place].append(text)
    heads = ["setting", "row", "measure", "ahead of", "level with", "behind"]
    return _markdown([heads, *([*key, *(", ".join(cell) for cell in cells)] for key, cells in sorted(found.items()))])


@cache
def _differences(plan: str) -> list[tuple[str, str, str, str, tuple[float, float, float], int]]:
    """Each two rows in both orders: setting, row, other row, measure, (mean, low, high), number of seeds."""
    found = []
    for setting, row, other, key, (mean, low, high), n in each_difference(Store(ROOT / "results" / plan)):
        if measure := MEASURES.get(key):
            found.append((setting, row, other, measure, (mean, low, high), n))
            found.append((setting, other, row, measure, (-mean, -high, -low), n))
    return found


def _bold(ends: tuple[float, float, float]) -> str:
    return _interval(ends) if ends[1] <= 0 <= ends[2] else f"**{_interval(ends)}**"


def _interval(ends: tuple[float, float, float]) -> str:
    return f"{ends[0]:+.1f} [{ends[1]:.1f}, {ends[2]:.1f}]"


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def insert(name: str, text: str, file: str = "README.md") -> None:
    """Replace what stands between the two markers of that name."""
    page, begin, end = ROOT / file, f"<!--{name}-->", f"<!--/{name}-->"
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
        insert("wins", show_wins_and_losses())
        insert("costs", show_costs())
        for plan in ("defaults", "comparison", "few_labels"):
            insert(plan, show_findings(plan), "results/findings.md")


if __name__ == "__main__":
    main()
