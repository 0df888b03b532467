"""Saving a run now and then, and bringing a run back to where it was saved."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from avalanche.training.templates import SupervisedTemplate
from omegaconf import DictConfig

from ftp_cl.benchmarks import data_identity
from ftp_cl.plugins.processes import rank
from ftp_cl.plugins.randomness import LoaderRandomness
from ftp_cl.runs.checkpoint_files import CheckpointFiles, from_bytes, to_bytes, truncate
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.directory import RunDirectory, differing
from ftp_cl.runs.environment import version_of
from ftp_cl.runs.group import agreed, any_of, together
from ftp_cl.runs.packing import BenchmarkItems, CannotSave, Packing
from ftp_cl.runs.strategy_state import load_parts_state, load_strategy_state, parts_state, strategy_state
from ftp_cl.runs.termination import Termination

_VERSIONS = ("ftp-cl", "torch", "avalanche-lib", "numpy")
# What it raises when a checkpoint with right checksums holds what no run has written. RuntimeError: torch's, and depth.
_WRONG_CONTENT = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class Position:
    """How far training has come.

    Attributes:
        experience: how many experiences of the stream were trained on before it; one may come several times.
        epoch: number of the epoch in it, from 0; None: the experience is trained, and its evaluation comes next.
        batch: batches of that epoch that are done.
    """

    experience: int
    epoch: int | None = None
    batch: int = 0


class Checkpoints:
    """Saves a run now and then, and brings a run back to where it was saved.

    Args:
        config: of the run.
        record: its directory.
        benchmark: the Avalanche benchmark.
        termination: asked after each iteration.
        say: takes lines for the user.

    Attributes:
        matrix: accuracies on each test experience, by number, after each training, percent; the loop adds to it.
        randomness: of the data loaders.
        resumed: where the run goes on; None from the beginning.
        number: of the experience in the stream that is trained on.
    """

    def __init__(
        self,
        config: DictConfig,
        record: RunDirectory,
        benchmark: Any,
        termination: Termination,
        say: Callable[[str], None],
    ) -> None:
        self.matrix: list[list[float]] = []
        self.randomness = LoaderRandomness(config.seed)
        self.resumed: Position | None = None
        self.number = 0
        self._config = config.checkpoint
        self._record, self._benchmark, self.termination, self._say = record, benchmark, termination, say
        self._say_once = cache(say)
        self._files = CheckpointFiles(record.path)
        self._versions = {package: version_of(package) for package in _VERSIONS}
        self._packing = Packing(BenchmarkItems(benchmark.streams.values()))
        self._data = data_identity(benchmark)
        self._loaded: bytes | None = None
        # What a user brought along, as it was before the experience. When training goes on within that, Avalanche
        # prepares it once more. What it prepares (which images, say) may depend on this state, and may have changed it.
        self._before: bytes | CannotSave = b""
        self._iterations, self._saved_at = 0, time.monotonic()
        self._train_seconds = 0.0
        self._training_since: float | None = None

    # ---- saving -----------------------------------------------------------------------------------------------------

    def save(self, strategy: SupervisedTemplate, position: Position, loaders: dict[str, Any]) -> None:
        """Write a checkpoint, or say why there is none; training goes on either way.

        Args:
            strategy: between two iterations or after an experience.
            position: how far it is.
            loaders: random state of the data loaders at the beginning of the epoch.
        """
        self._iterations, self._saved_at = 0, time.monotonic()
        if rank() > 0:  # the first process saves: the state is the same on all
            return
        try:
            state = {
                "versions": self._versions,
                "config": self._record.identity,
                "data": self._data,
                "position": asdict(position),
                "matrix": self.matrix,
                "train_seconds": self.train_seconds(),
                "events_size": self._record.sync_events(),
                "loaders": self._packing.pack(loaders, "loaders"),
                "strategy": strategy_state(strategy, self._packing),
            }
            if position.epoch is not None:
                if isinstance(self._before, CannotSave):
                    raise self._before
                state["before"] = torch.frombuffer(bytearray(self._before), dtype=torch.uint8)
            self._files.write(to_bytes(state))
        except CannotSave as error:
            between = "checkpoints are written between experiences only"
            what = between if position.epoch is not None else "no checkpoints are written, so resume=true begins anew"
            self._say_once(f"  {what}: {error}.")
        except OSError as error:
            self._say_once(f"  no checkpoint could be written ({error.strerror}); the one before is kept.")

    def iteration_done(self, strategy: SupervisedTemplate, position: Position, loaders: dict[str, Any]) -> None:
        """Save if it is time to, or if the process is to end."""
        self._iterations += 1
        minutes, iterations = self._config.every_minutes, self._config.every_iterations
        must_end = any_of(self.termination.arrived)
        is_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if must_end or is_time or (iterations is not None and self._iterations >= iterations):
            self.save(strategy, position, loaders)
        if must_end:
            self._end()

    def end_if_asked(self) -> None:
        """End the process if it is to end, or another one that trains together with it."""
        if any_of(self.termination.arrived):
            self._end()

    def _end(self) -> None:
        together()  # torchrun ends all processes soon after the first has ended, and that one may still be saving
        self.termination.exit()

    # ---- time in training -------------------------------------------------------------------------------------------

    def train_seconds(self) -> float:
        """Seconds in training so far, before and after the run was resumed."""
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self._train_seconds + running

    def train(self, strategy: SupervisedTemplate, experience: Any, number: int) -> None:
        """Train on one experience, the `number`-th of the stream, or on what is left of it, and save."""
        if self.resumed is None or self.resumed.epoch is None:
            try:
                self._before = to_bytes(parts_state(strategy, self._packing, users_only=True))
            except CannotSave as error:
                self._before = error
        self.number, self._training_since = number, time.perf_counter()
        strategy.train(experience)
        self._train_seconds, self._training_since = self.train_seconds(), None
        self.resumed = self._loaded = None
        self.termination.waits = True
        self.save(strategy, Position(number), self.randomness.state)
        self.termination.waits = False
        self.end_if_asked()

    # ---- going on ---------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove the checkpoints of an earlier attempt, or of the finished run."""
        if rank() == 0:
            self._files.clear()

    def resume(self, strategy: SupervisedTemplate) -> bool:
        """Bring the strategy, as built from the configuration, to the newest checkpoint that is whole.

        Returns:
            False if there is none.

        Raises:
            ConfigError: the checkpoint is whole but does not fit.
        """
        if self._files.are_of_earlier_version():
            raise ConfigError(
                f"The checkpoints in {self._files.folder} are of an earlier version of ftp_cl, whose format is read no "
                "more: remove them to begin anew, or go on with that version."
            )
        for content in self._contents():
            self._loaded = content
            with self.refusing_misfits():
                state = from_bytes(content, strategy.device)
                try:
                    if rank() == 0:
                        truncate(self._record.events_path, state["events_size"])
                except ValueError as error:
                    self._say(f"  a checkpoint is passed over: {error}.")
                    continue
                self._check_origin(state)
                self.resumed = Position(**state["position"])
                self.matrix, self._train_seconds = state["matrix"], state["train_seconds"]
                self._check_progress(self.resumed, strategy.train_epochs)
                self.randomness.state = self._packing.unpack(state["loaders"])
                self.restore(strategy)
                if self.resumed.epoch is not None:
                    self._before = before = state["before"].numpy().tobytes()
                    load_parts_state(from_bytes(before, strategy.device), strategy, self._packing, users_only=True)
                self._say(self._where(state["versions"]))
                if rank() == 0:
                    agreed(content)
                return True
        self._loaded = None
        if rank() == 0:
            agreed(None)
        return False

    def _contents(self) -> Iterator[bytes]:
        """Those that may be resumed from; of several processes the first reads, and the others get what it takes."""
        if rank() == 0:
            yield from self._files.newest_first()
        elif (content := agreed(None)) is not None:
            yield content

    def _check_origin(self, state: dict[str, Any]) -> None:
        """Whether a checkpoint is of this configuration and these data."""
        if others := differing(state["config"], self._record.identity):
            raise ValueError(f"it is of another configuration, which differs in {', '.join(others)}")
        before = state["data"]
        for stream in {**before, **self._data}:
            if stream not in before or stream not in self._data:
                raise ValueError(f"it is of other data, {'without' if stream in self._data else 'with'} {stream}")
            items, now = before[stream]["items"], self._data[stream]["items"]
            for number, (size, size_now) in enumerate(itertools.zip_longest(items, now, fillvalue=0), 1):
                if size != size_now:
                    words = f"experience {number} of {stream} had {size} items, and has {size_now} now"
                    raise ValueError(f"it is of other data: {words}")
            if before[stream] != self._data[stream]:
                words = f"{stream} has as many items, but other {' or '.join(self._data[stream]['covers'])}"
                raise ValueError(f"it is of other data: {words}")

    def _check_progress(self, position: Position, epochs: int) -> None:
        """Whether this run can be there; batches are counted when they are gone through."""
        counts = (position.experience, position.epoch or 0, position.batch)
        if not all(type(value) is int and value >= 0 for value in counts) or (
            position.epoch is None and position.batch
        ):
            raise ValueError(f"{position} is none")
        if position.experience >= len(self._benchmark.train_stream) or counts[1] >= epochs:
            raise ValueError(f"{position} is behind the end")
        numbers = [self._train_seconds, *(accuracy for row in self.matrix for accuracy in row)]
        if len(self.matrix) != position.experience or not all(type(number) is float for number in numbers):
            raise ValueError("its measurements are not those of the experiences before")

    def restore(self, strategy: SupervisedTemplate) -> None:
        """Put the loaded state into the strategy: once before training goes on, and again at the very position.

        What happens in between (Avalanche prepares the experience) is what happened before the position too; for what
        a user brought along, `_before` sees to it.
        """
        assert self._loaded is not None and self.resumed is not None
        begun = list(self._benchmark.train_stream)[: self.resumed.experience + 1]
        with self.refusing_misfits():
            # Read anew each time: training goes on in these very tensors.
            state = from_bytes(self._loaded, strategy.device)["strategy"]
            load_strategy_state(state, strategy, self._packing, begun)

    @contextlib.contextmanager
    def refusing_misfits(self) -> Iterator[None]:
        """Let errors of wrong content become one sentence.

        Until what was restored has been used for the rest of an experience, any error may be due to it.
        """
        try:
            yield
        except _WRONG_CONTENT as error:
            if isinstance(error, ConfigError | torch.OutOfMemoryError) or self._loaded is None:
                raise
            words = f"{'' if type(error) is ValueError else f'{type(error).__name__}: '}{' '.join(str(error).split())}"
            raise ConfigError(
                f"The checkpoint in {self._files.folder} does not fit this run ({words}; --debug shows where): remove "
                "it to begin anew."
            ) from error

    def _where(self, versions: dict[str, str]) -> str:
        assert self.resumed is not None
        number, epoch, batch = self.resumed.experience, self.resumed.epoch, self.resumed.batch
        others = [f"{package} {old}" for package, old in versions.items() if self._versions.get(package) != old]
        caution = f" (written with {', '.join(others)}: numbers may differ)" if others else ""
        place = "trained" if epoch is None else f"epoch {epoch + 1}, batch {batch}"
        return f"  resumed at experience {number + 1}, {place}{caution}"
