"""The command line `ftp-cl`: run, evaluate, report, compare, watch, ... Errors are one sentence and exit status 2."""

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Heavy imports (torch, Avalanche) stand in the commands that need them: `ftp-cl list` and errors answer at once.
import ftp_cl
from ftp_cl.runs.catalogue import entry, names
from ftp_cl.runs.config import load_config, load_repeated
from ftp_cl.runs.imports import without_collections
from ftp_cl.runs.output import lasting_output, sentence, without_warnings_of_others
from ftp_cl.runs.schema import ConfigError, expanded, suggestion
from ftp_cl.runs.text import printable
from ftp_cl.runs.torchrun import has_others, is_first, is_first_here

if TYPE_CHECKING:
    from ftp_cl.study.store import Store

USER_ERROR = 2

_Act = Callable[[argparse.Namespace, list[str]], int | None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    with lasting_output(BrokenPipeError):
        parsed, words = _parser().parse_known_args(arguments)
    # Figures go to files here. In a notebook's shell the variable names a module that this Python may not have, and
    # importing matplotlib would fail.
    os.environ.pop("MPLBACKEND", None)
    # What a run prints is on the disk too; of these it is all there is.
    only_prints = parsed.command in ("list", "watch", "results") or getattr(parsed, "cfg", None) is not None
    try:
        if words and parsed.command not in ("run", "evaluate"):
            raise ConfigError(
                f"{words[0]!r} is no option of ftp-cl {parsed.command}; see ftp-cl {parsed.command} --help."
            )
        with without_warnings_of_others(), lasting_output(BrokenPipeError if only_prints else OSError):
            return parsed.act(parsed, words) or 0
    except (ValueError, OSError, ImportError) as error:
        if parsed.debug:
            raise
        if isinstance(error, OSError) or is_first_here():  # what else is wrong, is wrong for all
            print(f"ftp-cl: {sentence(error)}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("ftp-cl: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ftp-cl",
        description="Train with Fast Trainable Projection (FTP) or another method.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"ftp_cl {ftp_cl.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(act: _Act, name: str, of: Any = commands, **words: Any) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = of.add_parser(name, **words)
        added.set_defaults(act=act)
        added.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return added

    run = command(
        _run,
        "run",
        help="train on a stream and evaluate",
        usage="ftp-cl run [-m] [--cfg job] [--from RESULT.json [--trust]] [key=value ...]",
        description="Without keys: FTP on split_emoji with EfficientNet-Lite0. 'ftp-cl list' names benchmarks, methods "
        "and models, '--cfg job' shows all keys, docs/configuration.md explains them.",
    )
    run.add_argument("-m", "--multirun", action="store_true", help="run all combinations: method=naive,ftp seed=0,1,2")
    run.add_argument("--cfg", choices=["job"], help="print the configuration and do not run")
    run.add_argument(
        "--from", dest="result", type=expanded, metavar="RESULT.json", help="repeat the run that wrote this file"
    )
    run.add_argument("--trust", action="store_true", help="also run the code that the result names by import path")

    evaluate = command(
        _evaluate,
        "evaluate",
        help="evaluate the saved weights of a run on other streams",
        usage="ftp-cl evaluate RUN [--json FILE] [benchmark=... key=value ...]",
    )
    evaluate.add_argument("directory", type=expanded, metavar="RUN", help="directory of a run with save_weights=true")
    evaluate.add_argument("--json", type=expanded, metavar="FILE", help="also write the numbers to this file")

    report = command(_report, "report", help="write tables and figures from the results under directories")
    report.add_argument("directories", nargs="+", type=expanded, metavar="DIR", help="directory of runs or of results")
    report.add_argument("--out", type=expanded, default="report", help="directory of the report (default: report)")
    report.add_argument("--figures", choices=["svg", "png"], help="also write each figure to a file of its own")

    listing = command(_list, "list", help="list benchmarks, methods and models")
    listing.add_argument("what", nargs="?", choices=["benchmarks", "methods", "models"])

    demo = command(_demo, "demo", help="compare four methods on one stream, in a few minutes on two cores")
    demo.add_argument("--out", type=expanded, default="demo", help="directory of runs and report (default: demo)")

    compare = command(_compare, "compare", help="tune methods with equal budgets and compare them (docs/compare.md)")
    compare.add_argument("settings", nargs="*", metavar="SETTING", help="settings of the plan (default: all)")
    compare.add_argument(
        "--plan", default="comparison", metavar="NAME", help="plan in configs/, or a YAML file (default: comparison)"
    )
    compare.add_argument("--quick", action="store_true", help="run the small version of the plan")
    compare.add_argument("--results", type=expanded, metavar="DIR", help="directory of results (default: results/NAME)")
    compare.add_argument(
        "--runs", type=expanded, default=Path("runs"), help="run directories; deletable afterwards (default: runs)"
    )
    compare.add_argument(
        "--workers", type=int, metavar="N", help="runs at a time (default: number of GPUs, without any of cores)"
    )
    compare.add_argument("--minutes", type=float, metavar="N", help="start no run after N minutes")

    results = commands.add_parser("results", help="work on a plan's stored results: export, drop, merge, differences")
    acts = results.add_subparsers(dest="results_command", required=True, metavar="action")
    export = command(_export, "export", acts, help="print one run as JSON for ftp-cl run --from")
    drop = command(_drop, "drop", acts, help="remove runs, so that ftp-cl compare repeats them")
    merge = command(_merge, "merge", acts, help="add the results of the same plan from other directories")
    differences = command(_differences, "differences", acts, help="print the paired differences of all rows as CSV")
    for act in (export, drop, merge, differences):
        act.add_argument("directory", type=expanded, metavar="DIR", help="directory, such as results/comparison")
    merge.add_argument("others", type=expanded, nargs="+", metavar="OTHER", help="directories to add from")
    for act in (export, drop):
        act.add_argument("--setting", required=act is export, help="setting of the plan")
        act.add_argument("--row", required=act is export, help="name of the row: a method of the plan")
    export.add_argument("--seed", type=int, required=True, help="seed of the run")

    watch = command(_watch, "watch", help="show what the runs under a directory are doing")
    watch.add_argument(
        "directory", nargs="?", type=expanded, default="runs", metavar="DIR", help="directory of runs (default: runs)"
    )
    watch.add_argument("--every", type=_seconds, metavar="SECONDS", help="repeat every so many seconds, until Ctrl-C")

    return parser


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def _run(parsed: argparse.Namespace, overrides: list[str]) -> int:
    if parsed.multirun and (parsed.result or parsed.cfg):
        raise ConfigError("--from and --cfg are for one run: they cannot be combined with --multirun.")
    if parsed.trust and not parsed.result:
        raise ConfigError("--trust is about what a result names: it goes with --from RESULT.json.")
    if parsed.multirun:
        if has_others():
            raise ConfigError("torchrun starts several processes for one run: it does not go with --multirun.")
        from ftp_cl.runs.sweep import run_many

        return run_many(overrides)
    config = load_repeated(parsed.result, overrides, parsed.trust) if parsed.result else load_config(overrides)
    if parsed.cfg:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(config, resolve=True), end="")
        return 0
    from rich.console import Console

    with without_collections():
        from ftp_cl.runs.directory import run_directory
        from ftp_cl.runs.run import run
        from ftp_cl.study.loading import load_results
        from ftp_cl.study.tables import terminal_table

    own = run_directory(overrides, repeats=parsed.result)
    path = run(config, expanded(config.out) if config.out else own)
    if is_first():
        Console().print(terminal_table(load_results([path])))
    return 0


def _evaluate(parsed: argparse.Namespace, overrides: list[str]) -> None:
    with without_collections():
        from ftp_cl.runs.evaluate import evaluate
    from ftp_cl.runs.files import replace_files

    reached = evaluate(parsed.directory, overrides, print if is_first() else lambda line: None)
    if not is_first():
        return
    width = max(map(len, reached))
    for stream, percent in reached.items():
        print(f"{printable(stream):{width}}  {percent:5.1f} %")
    if parsed.json:
        replace_files({parsed.json: json.dumps(reached, indent=1).encode()})


def _report(parsed: argparse.Namespace, _: list[str]) -> None:
    from rich.console import Console

    from ftp_cl.study.tables import terminal_table
    from ftp_cl.study.write import write_report

    paths = write_report(parsed.directories, parsed.out, parsed.figures)
    Console().print(terminal_table(paths.results))
    for written in (paths.html, paths.markdown, paths.csv, paths.latex, *paths.figures):
        print(printable(written))
    for found in paths.left_out:
        print(f"ftp-cl: left out: {found}", file=sys.stderr)


def _watch(parsed: argparse.Namespace, _: list[str]) -> None:
    from ftp_cl.study.watch import watch

    watch(parsed.directory, parsed.every)


def _list(parsed: argparse.Namespace, _: list[str]) -> None:
    for what in [parsed.what] if parsed.what else ["benchmarks", "methods", "models"]:
        group = what.removesuffix("s")
        print(f"{what}:")
        width = max(map(len, names(group)))
        for name in names(group):
            print(f"  {name:{width}}  {entry(group, name).description}")
        if group == "method":
            print("  Most combine with FTP: method=ewc with=ftp.")


def _demo(parsed: argparse.Namespace, _: list[str]) -> None:
    from ftp_cl.study.demo import demo

    demo(parsed.out)


def _compare(parsed: argparse.Namespace, _: list[str]) -> int:
    from ftp_cl.study.compare import compare
    from ftp_cl.study.plan import load_plan
    from ftp_cl.study.plan_tables import write_tables
    from ftp_cl.study.store import Store

    plan = load_plan(parsed.plan, parsed.quick, parsed.settings)
    name = Path(parsed.plan).stem + ("_quick" if parsed.quick else "")
    results = Store(parsed.results or Path("results") / name)
    missing = compare(plan, results, parsed.runs / name, parsed.workers, parsed.minutes)
    print(printable(write_tables(load_plan(parsed.plan, parsed.quick), results)))
    if missing:
        print(f"ftp-cl: {missing} runs are missing; the same command goes on.", file=sys.stderr)
    return 1 if missing else 0


def _export(parsed: argparse.Namespace, _: list[str]) -> None:
    runs = _store(parsed.directory).runs()
    wanted = {"setting": parsed.setting, "row": parsed.row, "seed": parsed.seed}
    for key, value in wanted.items():
        known = list(dict.fromkeys(str(run[key]) for run in runs))
        if str(value) not in known:
            raise ConfigError(f"{parsed.directory} has no {key} {value}{suggestion(str(value), known)}")
        runs = [run for run in runs if run[key] == value]
    print(json.dumps({key: value for key, value in runs[0].items() if key not in ("setting", "row")}, indent=1))


def _drop(parsed: argparse.Namespace, _: list[str]) -> None:
    if parsed.setting is None and parsed.row is None:
        raise ConfigError("drop needs --setting, --row or both: without them it would remove everything.")
    dropped = _store(parsed.directory).drop(parsed.setting, parsed.row)
    place = printable(parsed.directory)
    print(f"{dropped} runs removed from {place}; ftp-cl compare runs them again and writes the tables.")


def _merge(parsed: argparse.Namespace, _: list[str]) -> None:
    from ftp_cl.study.store import Store

    new = Store(parsed.directory).merge([_store(other) for other in parsed.others])
    print(f"{new} runs added to {printable(parsed.directory)}; ftp-cl compare writes the tables.")


def _differences(parsed: argparse.Namespace, _: list[str]) -> None:
    from ftp_cl.study.plan_tables import differences

    print(differences(_store(parsed.directory)), end="")


def _store(directory: Path) -> "Store":
    from ftp_cl.study.store import Store

    store = Store(directory)
    if store.is_empty():
        raise ConfigError(f"{directory} has no results of a plan: it must hold runs.parquet or tuning.parquet.")
    return store


if __name__ == "__main__":
    sys.exit(main())
