"""The recipes run as they stand, as a user would start them."""

import json
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest

from ftp_cl.benchmarks import emoji_domains

COLOURS, ANIMALS = ["red", "green", "blue", "grey"], ["cat", "dog", "cow", "hen"]
STRATEGIES = Path(__file__).parents[2] / "strategies"

ALL_DRAWINGS = emoji_domains.drawings
FEWER = {"segmentation_ftp": ["--scenes", "16"]}
SCRIPTS = sorted(STRATEGIES.glob("*.py"))


@cache
def drawings_of_few(domain, split):
    """A third of the emoji of each class."""
    return {name: dict([*images.items()][::3]) for name, images in ALL_DRAWINGS(domain, split).items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        *(
            (script, FEWER.get(script.stem, []))
            for script in SCRIPTS
            if not {"llm", "multitask"} & {*script.stem.split("_")}
        ),
        (STRATEGIES / "ftp_naive.py", ["--ensemble"]),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "".join(value),
)
def test_recipe_trains_and_prints_every_stream(script, options, tmp_path, monkeypatch, capsys):
    """In this process, which has loaded torch and Avalanche already, and on a third of the emoji."""
    if script.stem not in FEWER:
        monkeypatch.setattr(emoji_domains, "drawings", drawings_of_few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--epochs", "1", *options])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    streams = [line.split()[0] for line in printed.splitlines() if line.endswith(" %")]
    assert streams[0] == "test" and len(streams) == 7


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_recipe_is_short(script):
    assert len(script.read_text().splitlines()) < 100


@pytest.mark.parametrize("missing", ["--model", "--tasks"])
def test_a_model_or_a_file_that_is_not_there_is_said_in_a_sentence(tiny_llama, tmp_path, monkeypatch, missing):
    given = {"--model": str(tiny_llama), "--tasks": "class", missing: str(tmp_path / "nowhere" / "a.jsonl")}
    monkeypatch.setattr(sys, "argv", ["script", *(word for pair in given.items() for word in pair)])
    with pytest.raises(SystemExit, match=r"llm_lora_ftp.py: .*nowhere") as error:
        runpy.run_path(str(STRATEGIES / "llm_lora_ftp.py"), run_name="__main__")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_instruction_tasks_are_learned_in_turn_and_the_loss_of_each_is_told(tiny_llama, tmp_path, monkeypatch, capsys):
    """The second task contradicts the first, so that this one is forgotten; by less within balls."""
    for name, answer in (("a", "runs"), ("b", "eats")):
        lines = [json.dumps({"prompt": f"{c} {animal}", "answer": answer}) for c in COLOURS for animal in ANIMALS]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    forgetting = {}
    for free in ([], ["--without-ftp"]):
        words = [
            "script",
            "--model",
            str(tiny_llama),
            "--tasks",
            "a.jsonl",
            "b.jsonl",
            "--lr",
            "1e-2",
            "--epochs",
            "20",
        ]
        monkeypatch.setattr(sys, "argv", [*words, *free])
        runpy.run_path(str(STRATEGIES / "llm_lora_ftp.py"), run_name="__main__")
        printed = capsys.readouterr().out.splitlines()
        table = [[float(word) for word in line.split() if word[0].isdigit()] for line in printed[:2]]
        assert table[0][0] < table[0][1] and table[1][1] < table[1][0], "each is best right after its training"
        forgetting[bool(free)] = float(printed[2].split()[1])
        assert forgetting[bool(free)] == pytest.approx(table[1][0] - table[0][0], abs=2e-3)
    assert forgetting[False] < forgetting[True]
