"""What README and docs tell people to type and to follow."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftp_cl.cli import _parser, main
from ftp_cl.runs.config import load_config
from ftp_cl.study.plan import ComparedMethod

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
HEADS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name != "paper"]
NOT_OURS = re.compile(r"^\$|hydra[/.]|key=value")  # variables of the shell, Hydra's keys


def text_of(page: Path) -> str:
    return re.sub(r"\\\n\s*", "", page.read_text())


def commands() -> set[tuple[str, ...]]:
    """The overrides of each `ftp-cl run`; of values to be swept the first. Those with parts of a user are left out."""
    found = set()
    for page in [*PAGES, *HEADS]:
        for line in re.findall(r"(?:ftp-cl|-m ftp_cl) run +([^`\n|;]*)", text_of(page)):
            line = re.sub(r"=\$(\w+)", lambda name: "=0" if name[1].endswith("_ID") else "=/x", line.split(" #")[0])
            words = shlex.split(line.split(" && ")[0].rstrip(").,"))
            if not {"...", "--from", "--cfg"} & set(words) and not re.search(r"=own|my_", line):
                kept = [word for word in words if "=" in word and not NOT_OURS.search(word)]
                found.add(tuple(first(word) if "-m" in words else word for word in kept))
    return found


def first(word: str) -> str:
    """`seed=0` of `seed=0,1`; a list stays, and a search of Optuna is left out."""
    key, _, value = word.partition("=")
    return word if value.startswith("[") else "seed=0" if value.startswith("tag(") else f"{key}={value.split(',')[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("overrides", sorted(commands()), ids=" ".join)
def test_keys_and_values_of_a_command_exist(overrides):
    assert load_config(list(overrides))


def test_links_between_pages_lead_to_files():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


# ---- commands but `ftp-cl run`, in the order of the pages -----------------------------------------------------------


def other_commands(names: str) -> list[list[str]]:
    """The words of each line that begins with such a command, once."""
    lines = [line for page in PAGES for line in re.findall(rf"^ {{0,4}}ftp-cl ((?:{names})\b.*)", text_of(page), re.M)]
    return [shlex.split(line.split(" #")[0]) for line in dict.fromkeys(lines) if "$" not in line]


def test_plans_and_settings_of_comparisons_exist():
    from ftp_cl.study.plan import load_plan

    found = [_parser().parse_args(words) for words in other_commands("compare")]
    assert len(found) > 5
    for parsed in found:
        assert load_plan(parsed.plan, parsed.quick, parsed.settings).settings


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """What the pages name: a run `first` with its weights, `runs`, and a plan's results here and of another machine."""
    from ftp_cl.runs.run import run
    from ftp_cl.study.store import RUNS_FILE, Store

    place = tmp_path_factory.mktemp("workplace")
    small = [
        "model=small_cnn",
        "model.in_channels=3",
        "benchmark.size=32",
        "train.epochs=1",
        "train.batch_size=64",
        "threads=1",
    ]
    run(
        load_config(["benchmark=split_emoji", "benchmark.ood_domains=[blob]", "save_weights=true", *small]),
        place / "first",
    )
    (place / "runs").symlink_to("first")
    stored = Store(ROOT / "results" / "comparison").frame(RUNS_FILE)
    few = stored.filter((stored["setting"] == "robust") & stored["row"].is_in(["ftp", "naive"]))
    for name in ("results", "other"):
        (place / name / "comparison").mkdir(parents=True)
        few.write_parquet(place / name / "comparison" / RUNS_FILE)
    return place


@pytest.mark.slow
def test_commands_on_what_was_run_answer_as_they_stand(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    found = other_commands("list|evaluate|report|watch|results|run --from row")
    assert {words[0] for words in found} == {"evaluate", "report", "results", "run"}
    for words in found:
        target = words[words.index(">") + 1] if ">" in words else "output"
        words = words[: words.index(">")] if ">" in words else words
        with open(target, "w") as file, redirect_stdout(file):
            assert main([*words, *(["--cfg", "job"] if words[0] == "run" else [])]) == 0, words
        assert Path(target).read_text(), words


# ---- Python ---------------------------------------------------------------------------------------------------------


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.slow
def test_what_snippets_import_and_the_arguments_that_they_give_exist():
    """Of this package; a page's later snippets know what its first ones import."""
    checked = 0
    for page in PAGES:
        known = {name: getattr(importlib.import_module("ftp_cl"), name) for name in ("FTP", "FTPPlugin")}
        nodes = [node for snippet in snippets(page) for node in ast.walk(ast.parse(snippet, str(page)))]
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("ftp_cl"):
                module = importlib.import_module(node.module)
                known |= {alias.name: getattr(module, alias.name) for alias in node.names}
        for call in nodes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in known:
                options = {keyword.arg: None for keyword in call.keywords}
                inspect.signature(known[call.func.id]).bind_partial(*call.args, **options)
                checked += 1
    assert checked > 20


@pytest.mark.slow
def test_the_first_snippets_run():
    import torch
    from avalanche.training import Naive

    from ftp_cl.models import small_cnn

    def setting():
        model = small_cnn()
        return {"Naive": Naive, "torch": torch, "model": model, "criterion": torch.nn.CrossEntropyLoss(),
                "optimizer": torch.optim.SGD(model.parameters(), lr=1e-3)}  # fmt: skip

    avalanche, plain, *_ = snippets(ROOT / "README.md")
    exec(avalanche, names := setting())
    assert [type(plugin).__name__ for plugin in names["strategy"].plugins].count("FTPPlugin") == 1
    exec(plain, names := setting())
    for _ in range(2):  # the vote on the first change comes with the second gradient
        names["optimizer"].zero_grad()
        names["model"](torch.rand(2, 1, 8, 8)).sum().backward()
        names["optimizer"].step()
    assert names["ftp"].radii() and not any("head" in name for name in names["ftp"].radii())
    (one_line,) = snippets(ROOT / "docs" / "index.md")
    exec(one_line, setting() | {"FTP": type(names["ftp"])})
    (few_labels,) = snippets(ROOT / "docs" / "few_labels.md")
    exec(few_labels, names := {})
    assert len(names["benchmark"].streams["unlabelled"]) == 5


@pytest.fixture
def without_my_parts():
    """The module of that name that other tests import is out of the way."""
    of_others = sys.modules.pop("my_parts", None)
    yield
    sys.modules.pop("my_parts", None)
    if of_others:
        sys.modules["my_parts"] = of_others


@pytest.mark.slow
def test_parts_of_ones_own_run_as_the_page_has_them(tmp_path, monkeypatch, without_my_parts):
    page = ROOT / "docs" / "own_method.md"
    (parts,) = snippets(page)
    (command,) = re.findall(r"ftp-cl (run benchmark=own .*)", text_of(page))
    monkeypatch.chdir(tmp_path)
    Path("my_parts.py").write_text(parts)
    monkeypatch.syspath_prepend(tmp_path)
    assert main([*shlex.split(command), "out=run", "train.epochs=1", "train.batch_size=64", "threads=1"]) == 0
    assert (tmp_path / "run" / "result.json").exists()


@pytest.fixture
def update_readme():
    return runpy.run_path(str(ROOT / "tools" / "update_readme.py"))


def test_generated_lines_and_tables_are_those_of_the_stored_results(update_readme):
    found = update_readme["from_results"]()
    assert {page for page, _ in found} > {"README.md", "results/findings.md", "docs/text.md", "docs/ftp_or_not.md"}
    for (page, name), text in found.items():
        lines = f"<!--{name}-->\n{text}\n<!--/{name}-->"
        assert lines in (ROOT / page).read_text(), "python tools/update_readme.py --results"


def test_a_verdict_comes_from_the_intervals(update_readme):
    """Of a row's lead in each measure; the best row of a curve is named by its rate."""
    globals_of = update_readme["show_compared"].__globals__
    globals_of["compared"] = lambda: {"page": {"all": [["plan", "one", "ftp, *", other, "{row}"] for other in "abcd"]}}
    given = {"start": {}, "space": {}, "settings": ()}
    rows = [("ftp, 1e-3", "lr=1e-3", "ftp"), ("ftp, 1e-2", "lr=1e-2", "ftp"), ("ftp, tuned", "lr=5", "ftp, tuned")]
    methods = [ComparedMethod(name=name, overrides=("x", rate), curve=curve, **given) for name, rate, curve in rows]
    globals_of["load_plan"] = lambda plan: SimpleNamespace(methods=methods)
    globals_of["_means"] = lambda plan: {"ftp, 1e-3": (50.0, 1.0), "ftp, 1e-2": (60.0, 1.0), "ftp, tuned": (70.0, 1.0)}
    leads = {"a": [(2, 1, 3), (0, -1, 1)], "b": [(2, 1, 3), (-2, -3, -1)], "c": [(0, -1, 1), (-2, -3, -1)]}
    leads["d"] = [(0.5, 0, 1), (-0.5, -1, 0)]
    globals_of["_differences"] = lambda plan: [
        ("one", "ftp, 1e-2", other, measure, ends, 5)
        for other, both in leads.items()
        for measure, ends in zip(("accuracy", "OOD"), both, strict=True)
    ]
    assert update_readme["show_compared"]("page", "all").splitlines() == [
        "- **Wins**: 1e-2: accuracy **+2.0 [1.0, 3.0]**, OOD +0.0 [-1.0, 1.0] (5 seeds).",
        "- **Wins and loses**: 1e-2: accuracy **+2.0 [1.0, 3.0]**, OOD **-2.0 [-3.0, -1.0]** (5 seeds).",
        "- **Loses**: 1e-2: accuracy +0.0 [-1.0, 1.0], OOD **-2.0 [-3.0, -1.0]** (5 seeds).",
        "- **Undecided**: 1e-2: accuracy +0.5 [0.0, 1.0], OOD -0.5 [-1.0, 0.0] (5 seeds).",
    ]


def test_readme_is_short():
    text = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert len(text.split()) <= 900
    assert len(re.findall(r"^\| ---", text, re.M)) <= 3
