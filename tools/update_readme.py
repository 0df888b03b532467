"""Puts generated lines and tables into README.md, the pages of docs/ and results/findings.md, between markers.

`python tools/update_readme.py --demo demo` takes the table of a finished demo. `--results` takes everything that
follows from results/, the tables of docs/timings.md and the files in configs/. `--configuration` takes the table of
keys from the schema.
"""

import argparse
import re
import sys
from functools import cache
from pathlib import Path

import polars as pl
import yaml

from ftp_cl.runs.schema import table_of_keys
from ftp_cl.study.aggregate import Spread
from ftp_cl.study.loading import load_results
from ftp_cl.study.plan import load_plan
from ftp_cl.study.plan_tables import each_difference, name_of, settings_means
from ftp_cl.study.store import RUNS_FILE, Store

ROOT = Path(__file__).parents[1]
MEASURES = {"average_accuracy": "accuracy", "ood_average": "OOD"}
METHODS = {
    "naive": "fine-tuning, tuned",
    "l2_sp": "L2-SP, tuned",
    "lda": "frozen features + LDA",
    "ftp": "FTP",
    "ranpac": "frozen features + RanPAC",
    "ftp_ranpac": "FTP in the first task, then RanPAC",
    "ftp_lda": "FTP in the first task, then LDA",
    "naive_ranpac": "fine-tuning in the first task, then RanPAC",
    "classifier_alignment": "classifier alignment, fine-tuning's rate",
    "classifier_alignment, ftp": "classifier alignment with FTP",
    "aper, ftp": "APER, FTP in the first task",
    "fixmatch": "FixMatch, tuned",
    "fixmatch_ftp": "FixMatch with FTP",
}
OF_STREAMS = {
    "average_accuracy": "accuracy",
    "average_incremental_accuracy": "incremental accuracy",
    "average_forgetting": "forgetting",
    "ood_average": "corrupted",
}

DEFAULT = "ftp 1 1e-2"

KINDS = ("method", "benchmark", "model")
VERDICTS = {(True, False): "Wins", (True, True): "Wins and loses", (False, True): "Loses", (False, False): "Undecided"}
COSTS = """\
**What it costs.** On a CPU, an iteration of a small network takes {iterations:.2f} times as long with FTP. The step of
fused AdamW alone takes {numba:.1f} times as long, {numba, one pass:.1f} with `method="one_pass"`,
{torch, hooks:.1f} without Numba (`.[fast]`). FTP keeps [two more copies of the weights](docs/speed.md).
**Nothing has run on a GPU yet** ([timings](docs/timings.md))."""
CURVES = {"naive": "fine-tuning", "ftp": "FTP", "lora": "LoRA", "ftp on lora": "FTP on LoRA"}
FIGURE = """\
CLIP ViT-B/16 on a few photographs, {n} seeds, accuracy/OOD in percent. Fine-tuning ("naive"):
{naive}; FTP, untuned: {ftp}.
FTP's lead in points, each at its most accurate rate on the test images (95 % intervals): {leads}."""
BOX = """\
- `ftp-cl list` names {method} [methods](configs/method) ({combined} combine with FTP: `with=ftp`), {benchmark}
  [benchmarks](docs/benchmarks.md) and {model} [models](docs/models.md); weights from the hub or files."""


def show_demo(demo: Path) -> str:
    """The numbers of the demo in short."""
    rows = [["method", "accuracy (%)", "OOD (%)", "forgetting (points)"]]
    for result in sorted(load_results([demo / "runs"]), key=lambda result: -result.average_accuracy):
        numbers = (result.average_accuracy, result.ood_average, result.average_forgetting)
        rows.append([str(result.config["label"]), *(f"{number:.1f}" for number in numbers)])
    return _markdown(rows)


def show_cifar100(setting: str, seeds: int = 1) -> str:
    """Of the rows of results/cifar100 in `METHODS` with so many seeds, the means, the highest accuracy first."""
    runs = Store(ROOT / "results" / "cifar100").frame(RUNS_FILE)
    runs = runs.filter(pl.col("setting") == setting, pl.col("row").is_in(list(METHODS)))
    measures = {measure: words for measure, words in OF_STREAMS.items() if runs[measure].null_count() < runs.height}
    rows = [["method", *measures.values(), "n"]]
    for (name,), of_row in sorted(runs.group_by("row"), key=lambda item: -item[1]["average_accuracy"].mean()):
        cells = [Spread.of(of_row[measure].to_list()).text() for measure in measures]
        if of_row.height >= seeds:
            rows.append([METHODS[name], *cells, str(of_row.height)])
    return _markdown(rows)


@cache
def compared() -> dict[str, dict[str, list[list[str]]]]:
    """The comparisons of each page, by marker."""
    return yaml.safe_load((ROOT / "tools" / "compared.yaml").read_text())


def show_compared(page: str, marker: str) -> str:
    """A line for each comparison in tools/compared.yaml that has rows, in the order of verdicts."""
    lines = []
    for plan, *names, words in compared()[page][marker]:
        row, other = (_best(plan, name) for name in names[1:])
        found = [(measure, ends, n) for *rows, measure, ends, n in _differences(plan) if rows == [names[0], row, other]]
        if found:  # else there are no such rows yet
            verdict = VERDICTS[any(ends[1] > 0 for _, ends, _ in found), any(ends[2] < 0 for _, ends, _ in found)]
            words = words.format(row=_rates(plan).get(row), other=_rates(plan).get(other))
            numbers = ", ".join(f"{measure} {_bold(ends)}" for measure, ends, _ in found)
            seeds = f"{found[0][-1]} seeds"
            lines.append((verdict, f"{words}: {numbers}{'' if seeds == '10 seeds' else f' ({seeds})'}."))
    lines.sort(key=lambda line: list(VERDICTS.values()).index(line[0]))
    colon = "" if page == "README.md" else ":"  # whose lines go on with "against"
    return "\n".join(f"- **{verdict}**{colon} {text}" for verdict, text in lines) or "No results are stored yet."


def show_rates(plan: str) -> str:
    """Mean accuracy and OOD of a plan's curves at each rate, in percent."""
    points = {
        words: {_rates(plan)[row]: _both(plan, row) for row in rows}
        for curve, words in CURVES.items()
        if (rows := _points(plan, curve))
    }
    rates = sorted({rate for of_curve in points.values() for rate in of_curve}, key=float)
    rows = [[rate, *(of_curve.get(rate, "") for of_curve in points.values())] for rate in rates]
    return _markdown([["rate", *points], *rows])


def show_values() -> str:
    """How far each pair of FTP's k and mu is behind the best of all, over data and rates, in points."""
    cases = _cases("values")
    rows = []
    for pair in dict.fromkeys(pair for case in cases.values() for pair in case):
        lags = [
            [max(of[place] for of in case.values()) - case[pair][place] for case in cases.values()] for place in (0, 1)
        ]
        _, k, mu = pair.split()
        rows.append([k, mu, *(f"{number:.1f}" for lag in lags for number in (sum(lag) / len(lag), max(lag)))])
    heads = [f"{measure}, {of}" for measure in MEASURES.values() for of in ("mean", "worst")]
    return _markdown([["k", "mu", *heads], *rows])


def show_default_values() -> str:
    """FTP's default values at each rate, with their lead over the best other pair of k and mu."""
    found = {tuple(names): ends for *names, ends, _ in _differences("values")}
    rows = []
    for (setting, rate), case in _cases("values").items():
        cells = []
        for place, measure in enumerate(MEASURES.values()):
            best = max((pair for pair in case if pair != DEFAULT), key=lambda pair: case[pair][place])
            lead = found.get((setting, f"{DEFAULT}, {rate}", f"{best}, {rate}", measure))
            difference = _bold(lead) if lead else f"{case[DEFAULT][place] - case[best][place]:+.1f}"
            cells += [f"{case[DEFAULT][place]:.1f}", best.removeprefix("ftp "), difference]
        rows.append([setting, rate, *cells])
    heads = [head for measure in MEASURES.values() for head in (measure, "best other k, mu", "lead")]
    return _markdown([["data", "rate", *heads], *rows])


def _cases(plan: str) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """Setting and rate -> mean accuracy and OOD of each curve, over the seeds that all curves have."""
    curves, rates = {method.name: method.curve for method in load_plan(plan).methods}, _rates(plan)
    runs = _runs(plan).with_columns(
        curve=pl.col("row").replace_strict(curves), rate=pl.col("row").replace_strict(rates)
    )
    has_all = pl.col("curve").n_unique().over("setting", "rate", "seed") == len(set(curves.values()))
    means = runs.filter(has_all).group_by("setting", "rate", "curve").agg(pl.col(*MEASURES).mean())
    cases: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for setting, rate, curve, *numbers in means.sort("setting", pl.col("rate").cast(float), "curve").iter_rows():
        cases.setdefault((setting, rate), {})[curve] = tuple(numbers)
    return cases


def _both(plan: str, row: str) -> str:
    """Mean accuracy and OOD of a row, in percent."""
    return "{:.1f} / {:.1f}".format(*_means(plan)[row])


def show_figure() -> str:
    """What the figure of results/vit_rates shows, in numbers."""
    best, best_of_ftp = _best("vit_rates", "naive, *"), _best("vit_rates", "ftp, *")
    rate = {row: float(text) for row, text in _rates("vit_rates").items()}
    of_ftp = {rate[row]: row for row in _points("vit_rates", "ftp")}
    shown = [row for row in _points("vit_rates", "naive") if rate[best] <= rate[row] <= 10.1 * rate[best]]  # a decade
    shown.sort(key=rate.get)
    of_both = [of_ftp[at] for at in sorted({*map(rate.get, shown), max(of_ftp)} & of_ftp.keys())]
    found = {tuple(names): (ends, n) for *names, ends, n in _differences("vit_rates")}
    leads = {measure: found["photographs", best_of_ftp, best, measure] for measure in MEASURES.values()}
    return FIGURE.format(
        n=leads["accuracy"][1],
        naive=", ".join(map(_at_its_rate, shown)),
        ftp=", ".join(map(_at_its_rate, of_both)),
        leads=", ".join(f"{measure} {_bold(ends)}" for measure, (ends, _) in leads.items()),
    )


def _at_its_rate(row: str) -> str:
    return f"{_both('vit_rates', row).replace(' ', '')} at {_rates('vit_rates')[row]}"


def show_box() -> str:
    """How many methods, benchmarks and models come with the package; `own` stands for parts of a user."""
    found = {kind: [path for path in (ROOT / "configs" / kind).glob("*.yaml") if path.stem != "own"] for kind in KINDS}
    counts = {kind: len(paths) for kind, paths in found.items()}
    combined = sum(isinstance(yaml.safe_load(path.read_text()).get("with_ftp", {}), dict) for path in found["method"])
    return BOX.format(**counts, combined=combined)


def show_costs() -> str:
    """The smallest and the largest multiples in the tables of docs/timings.md."""
    steps, eager = _multiples("models"), _multiples("iterations").items()  # compiled ones are multiples of eager ones
    whole = [number for head, numbers in eager if not head.startswith(("naive", "TPGM")) for number in numbers]
    ranges = {head: (min(all_of), max(all_of)) for head, all_of in {**steps, "iterations": whole}.items() if all_of}
    return re.sub(
        r"\{(.+?)(:.+?)\}", lambda found: " to ".join(f"{{{found[2]}}}".format(end) for end in ranges[found[1]]), COSTS
    )


def _multiples(table: str) -> dict[str, list[float]]:
    """The cells such as 1.95x of a table of docs/timings.md, by the head of their column."""
    _, _, rest = (ROOT / "docs" / "timings.md").read_text().partition(f"<!-- {table}: begin -->")
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
def _runs(plan: str) -> pl.DataFrame:
    """What results/ has of a plan, also of the mean over its settings."""
    store = Store(ROOT / "results" / plan)
    parts = [store.frame(RUNS_FILE)]
    if parts[0].height and (content := load_plan(plan)).mean_over:
        parts.append(settings_means(content, store).with_columns(setting=pl.lit("mean")))
    columns = ["setting", "row", "seed", "average_accuracy", "ood_average", "average_forgetting", "^metric$"]
    return pl.concat([part.select(columns) for part in parts], how="diagonal")


@cache
def _differences(plan: str) -> list[tuple[str, str, str, str, tuple[float, float, float], int]]:
    """Each two rows in both orders: setting, row, other row, measure, (mean, low, high), number of seeds."""
    found = []
    for setting, row, other, key, (mean, low, high), n in each_difference(_runs(plan)):
        if measure := MEASURES.get(key):
            measure = name_of(measure, _runs(plan))
            found.append((setting, row, other, measure, (mean, low, high), n))
            found.append((setting, other, row, measure, (-mean, -high, -low), n))
    return found


@cache
def _means(plan: str) -> dict[str, tuple[float, float]]:
    """Accuracy and OOD of each row, in a plan of one setting."""
    means = _runs(plan).group_by("row").agg(pl.col(*MEASURES).mean())
    return {row: (accuracy, ood) for row, accuracy, ood in means.select("row", *MEASURES).iter_rows()}


def _points(plan: str, curve: str) -> list[str]:
    """The rows of a curve over the rate that have results."""
    rows = [method.name for method in load_plan(plan).methods if method.curve == curve != method.name]
    return [row for row in rows if row in _means(plan)]


def _best(plan: str, name: str) -> str:
    """The row itself, or for "naive, *" that of this curve with the highest mean accuracy."""
    points = _points(plan, name.removesuffix(", *")) if name.endswith(", *") else []
    return max(points, key=lambda row: _means(plan)[row][0], default=name)


@cache
def _rates(plan: str) -> dict[str, str]:
    """The rate of each row of a curve: the plan adds it behind the overrides of the curve."""
    points = [method for method in load_plan(plan).methods if method.curve != method.name]
    return {method.name: method.overrides[-1].partition("=")[2] for method in points}


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


def from_results() -> dict[tuple[str, str], str]:
    """What stands on a page between the markers of a name."""
    found = {
        ("README.md", "cifar100"): show_cifar100("class_incremental", seeds=5),
        ("README.md", "costs"): show_costs(),
        ("README.md", "box"): show_box(),
        ("docs/text.md", "rates"): show_rates("text"),
        ("docs/transformers.md", "rates"): show_rates("vit_rates"),
        ("docs/transformers.md", "lora rates"): show_rates("vit_lora"),
        ("docs/transformers.md", "values"): show_values(),
        ("docs/transformers.md", "default values"): show_default_values(),
    }
    settings = load_plan("cifar100").settings
    found |= {("docs/cifar100.md", setting): show_cifar100(setting) for setting in settings}
    found |= {(page, "figure"): show_figure() for page in ("README.md", "docs/index.md", "docs/transformers.md")}
    found |= {("results/findings.md", plan): show_findings(plan) for plan in ("defaults", "comparison", "few_labels")}
    return found | {(page, name): show_compared(page, name) for page, of_page in compared().items() for name in of_page}


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
        for (page, marker), text in from_results().items():
            insert(marker, text, page)


if __name__ == "__main__":
    main()
