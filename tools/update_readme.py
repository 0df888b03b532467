"""Puts the table and the figure of a finished demo into README.md: `python tools/update_readme.py demo`."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- demo: begin -->", "<!-- demo: end -->"


def main(demo: Path) -> None:
    """Replace what stands between the two markers."""
    table = [line for line in (demo / "report.md").read_text().splitlines() if not line.startswith("#")]
    figure = ROOT / "docs" / "figures" / "demo.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(demo / "figure.svg", figure)
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"README.md lacks the lines {BEGIN} and {END}.")
    shown = "\n".join(table).strip()
    image = "![Accuracy after each experience, and in other styles](docs/figures/demo.svg)"
    readme.write_text(f"{before}{BEGIN}\n{shown}\n\n{image}\n{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
