"""What a run shows while it runs: a bar on a terminal, one line per experience in a log file."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ftp_cl.runs.text import printable


class RunProgress:
    """A context manager that is told of iterations and lines of text.

    Args:
        name: what the run is called.
        experiences: how many there are.
    """

    def __init__(self, name: str, experiences: int, console: Console | None = None) -> None:
        self.console = console or Console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._name, self._experiences = printable(name), experiences
        self._task = self._bar.add_task(self._name, total=None, unit="iterations")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start_experience(self, number: int, iterations: int) -> None:
        """Begin the bar of one experience; `number` counts from 0."""
        description = f"{self._name}, experience {number + 1} of {self._experiences}"
        self._bar.reset(self._task, total=iterations, description=description, unit="iterations")

    def start_evaluation(self, streams: int) -> None:
        """Begin the bar of an evaluation of so many OOD streams."""
        self._bar.reset(self._task, total=streams, description=f"{self._name}, evaluation", unit="OOD streams")

    def advance(self) -> None:
        """One iteration or stream is done."""
        self._bar.advance(self._task)

    def move_to(self, iteration: int) -> None:
        """So many iterations of the experience are done."""
        self._bar.update(self._task, completed=iteration)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
