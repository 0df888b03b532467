"""What README and docs tell people to type and to follow."""

import re
import shlex
from pathlib import Path

import pytest

from ftp_cl.runs.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
NOT_OURS = re.compile(r"^\$|hydra[/.]|key=value")  # variables of the shell, Hydra's keys


def commands() -> set[tuple[str, ...]]:
    """The overrides of each `ftp-cl run`; of values to be swept the first. Those with parts of a user are left out."""
    found = set()
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text())
        for line in re.findall(r"(?:ftp-cl|-m ftp_cl) run +([^`\n|;]*)", text):
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
