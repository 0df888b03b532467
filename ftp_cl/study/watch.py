"""What the runs under a directory are doing: finished, in progress, failed, interrupted."""

import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ftp_cl.runs.status import STATES, LeftOut, statuses
from ftp_cl.runs.text import printable
from ftp_cl.study.loading import ReportError


def watch(root: Path, every: float | None) -> None:
    """Show the runs under a directory, once or until interrupted.

    Args:
        root: searched recursively for run directories.
        every: seconds between two looks; None: one look.
    """
    console = Console()
    if every is None:
        console.print(status_table(root))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(status_table(root), refresh=True)
            time.sleep(every)


def status_table(root: Path) -> Table:
    """The runs under a directory, those in progress first.

    Raises:
        ReportError: there is no such directory.
    """
    if not root.is_dir():
        raise ReportError(f"{root}: no such directory")
    left_out: list[LeftOut] = []
    runs = sorted(statuses(root, left_out), key=lambda run: (STATES.index(run.state), run.directory))
    counts = ", ".join(f"{sum(run.state == state for run in runs)} {state}" for state in STATES)
    # Above the table, whose end a terminal cuts off where there are more runs than lines.
    heading = Text("\n".join([counts, *map(str, left_out)]))
    table = Table(box=box.SIMPLE, title=heading, title_justify="left")
    table.add_column("run", overflow="fold", min_width=20)
    table.add_column("state", no_wrap=True)
    table.add_column("latest", min_width=24)
    table.add_column("ago", no_wrap=True)
    for run in runs:
        age = "" if run.age is None else _hours(run.age)
        table.add_row(Text(printable(run.directory.relative_to(root))), run.state, Text(run.latest), age)
    return table


def _hours(seconds: float) -> str:
    """HH:MM:SS, with as many hours as there are."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
