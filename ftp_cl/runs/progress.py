"""What a run shows while it runs: a bar on a terminal, one line per experience in a log file."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ftp_cl.runs.text import printable


class RunProgress(Progress):
    """A context manager that is told of iterations and lines of text.

    Args:
        name: what the run is called.
        experiences: how many there are.
    """

    def __init__(self, name: str, experiences: int, console: Console | None = None) -> None:
        console = console or Console()
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.name, self._experiences = printable(name), experiences
        self._bar = self.add_task(self.name, total=None, unit="iterations")

    def start_experience(self, number: int, iterations: int) -> None:
        """Begin the bar of one experience; `number` counts from 0."""
        description = f"{self.name}, experience {number + 1} of {self._experiences}"
        self.reset(self._bar, total=iterations, description=description, unit="iterations")

    def start_evaluation(self, streams: int) -> None:
        """Begin the bar of an evaluation of so many OOD streams."""
        self.reset(self._bar, total=streams, description=f"{self.name}, evaluation", unit="OOD streams")

    def step(self) -> None:
        """One iteration or stream is done."""
        self.advance(self._bar)

    def move_to(self, iteration: int) -> None:
        """So many iterations of the experience are done."""
        self.update(self._bar, completed=iteration)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
