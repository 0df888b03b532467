"""Training that can be cut off after any iteration and goes on from there: the strategy, its batches, checkpoints."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from avalanche.training import Naive
from avalanche.training.templates import SupervisedTemplate
from omegaconf import DictConfig
from torch import Tensor

from ftp_cl.benchmarks import data_identity
from ftp_cl.plugins.randomness import LoaderRandomness
from ftp_cl.runs.checkpoint_files import CheckpointFiles, truncate
from ftp_cl.runs.config import ConfigError
from ftp_cl.runs.directory import RunDirectory, differing
from ftp_cl.runs.encoding import BenchmarkItems, CannotSave, Decoder, Encoder
from ftp_cl.runs.strategy_state import (
    BEFORE,
    decode_own_parts,
    decode_strategy,
    encode_own_parts,
    encode_strategy,
)
from ftp_cl.runs.termination import Termination

_VERSIONS = ("ftp-cl", "torch", "avalanche-lib", "numpy")
_END = object()

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


@dataclass(frozen=True)
class OwnParts:
    """What a user brought along, as it was before an experience.

    When training goes on within the experience, Avalanche prepares that once more. What it prepares (which images,
    say) may depend on this state, and the preparation may have changed it.

    Attributes:
        code: from `encode_own_parts`.
        tensors: of the code.
    """

    code: Any
    tensors: dict[str, Tensor]

    @classmethod
    def of_checkpoint(cls, code: Any, tensors: dict[str, Tensor]) -> "OwnParts":
        """Those that a checkpoint holds, among its tensors."""
        return cls(code, {name: tensor for name, tensor in tensors.items() if name.startswith(BEFORE)})


@dataclass
class Measured:
    """What the run has measured so far, beside metrics.jsonl.

    Attributes:
        matrix: accuracies on each test experience, by number, after each training, percent.
        train_seconds: in training so far.
    """

    matrix: list[list[float]]
    train_seconds: float = 0.0


class Checkpoints:
    """Saves a run now and then, and brings a run back to where it was saved.

    Args:
        config: of the run.
        record: its directory.
        benchmark: the Avalanche benchmark.
        termination: asked after each iteration.
        say: takes lines for the user.

    Attributes:
        measured: saved along; shared with the loop.
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
        self.measured = Measured([])
        self.randomness = LoaderRandomness(config.seed)
        self.resumed: Position | None = None
        self.number = 0
        self._config = config.checkpoint
        self._record, self._benchmark, self._termination, self._say = record, benchmark, termination, say
        self._files = CheckpointFiles(record.path)
        self._versions = {package: version(package) for package in _VERSIONS}
        self._items = BenchmarkItems(benchmark.streams.values())
        self._data = data_identity(benchmark)
        self._loaded: tuple[Any, Any] | None = None
        self._before: OwnParts | CannotSave = OwnParts({}, {})
        self._iterations, self._saved_at = 0, time.monotonic()
        self._training_since: float | None = None
        self._refusals: set[str] = set()

    # ---- saving -----------------------------------------------------------------------------------------------------

    def save(self, strategy: SupervisedTemplate, position: Position, loaders: dict[str, Any]) -> None:
        """Write a checkpoint, or say why there is none; training goes on either way.

        Args:
            strategy: between two iterations or after an experience.
            position: how far it is.
            loaders: random state of the data loaders at the beginning of the epoch.
        """
        self._iterations, self._saved_at = 0, time.monotonic()
        encoder = Encoder(self._items)
        try:
            state = {
                "versions": self._versions,
                "config": self._record.identity,
                "data": self._data,
                "position": asdict(position),
                "measured": asdict(Measured(self.measured.matrix, self.train_seconds())),
                "events_size": self._record.sync_events(),
                "loaders": encoder.encode(loaders, "loaders"),
                "strategy": encode_strategy(strategy, encoder),
            }
            if position.epoch is not None:
                if isinstance(self._before, CannotSave):
                    raise self._before
                state["before"] = self._before.code
                encoder.tensors.update(self._before.tensors)
            self._files.write(state, encoder.tensors)
        except CannotSave as error:
            where = "between experiences only" if position.epoch is not None else "not at all: resume=true begins anew"
            self._say_once(f"  checkpoints are written {where}, because {error}.")
        except OSError as error:
            self._say_once(f"  no checkpoint could be written ({error.strerror}); the one before is kept.")

    def iteration_done(self, strategy: SupervisedTemplate, position: Position, loaders: dict[str, Any]) -> None:
        """Save if it is time to, or if the process is to end."""
        self._iterations += 1
        minutes, iterations = self._config.every_minutes, self._config.every_iterations
        is_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        if self._termination.arrived or is_time or (iterations is not None and self._iterations >= iterations):
            self.save(strategy, position, loaders)
        if self._termination.arrived:
            self._termination.exit()

    def _say_once(self, text: str) -> None:
        if text not in self._refusals:
            self._refusals.add(text)
            self._say(text)

    # ---- time in training -------------------------------------------------------------------------------------------

    def train_seconds(self) -> float:
        """Seconds in training so far, before and after the run was resumed."""
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self.measured.train_seconds + running

    def train(self, strategy: SupervisedTemplate, experience: Any, number: int) -> None:
        """Train on one experience, the `number`-th of the stream, or on what is left of it, and save."""
        if self.resumed is None or self.resumed.epoch is None:
            self._before = self._own_parts(strategy)
        self.number, self._training_since = number, time.perf_counter()
        strategy.train(experience)
        self.measured.train_seconds, self._training_since = self.train_seconds(), None
        self.resumed = self._loaded = None
        self._termination.waits = True
        self.save(strategy, Position(number), self.randomness.state)
        self._termination.waits = False
        if self._termination.arrived:
            self._termination.exit()

    def _own_parts(self, strategy: SupervisedTemplate) -> "OwnParts | CannotSave":
        encoder = Encoder(self._items)
        try:
            return OwnParts(encode_own_parts(strategy, encoder), encoder.tensors)
        except CannotSave as error:
            return error

    # ---- going on ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Remove the checkpoints of an earlier attempt."""
        self._files.clear()

    def finish(self) -> None:
        """Remove the checkpoints of the finished run."""
        self._files.clear()

    def resume(self, strategy: SupervisedTemplate) -> bool:
        """Bring the strategy, as built from the configuration, to the newest checkpoint that is whole.

        Returns:
            False if there is none.

        Raises:
            ConfigError: the checkpoint is whole but does not fit.
        """
        for state, tensors in self._files.newest_first():
            try:
                truncate(self._record.events_path, state["events_size"])
            except (ValueError, KeyError, TypeError) as error:
                self._say(f"  a checkpoint is passed over: {error}.")
                continue
            self._loaded = (state, tensors)
            with self.refusing_misfits():
                self._check_origin(state)
                self.resumed = self._position(state["position"], strategy.train_epochs)
                self.measured = Measured(**state["measured"])
                self._check_measured()
                self.randomness.state = Decoder(tensors, self._items, strategy.model).decode(state["loaders"])
                self.restore(strategy)
                if self.resumed.epoch is not None:
                    self._before = OwnParts.of_checkpoint(state["before"], tensors)
                    decode_own_parts(state["before"], strategy, Decoder(tensors, self._items, strategy.model))
                self._say(self._where(state["versions"]))
            return True
        return False

    def _check_origin(self, state: dict[str, Any]) -> None:
        """Whether a checkpoint is of this configuration and these data; those of version 0.1.0 do not tell."""
        if others := differing(state.get("config", self._record.identity), self._record.identity):
            raise ValueError(f"it is of another configuration, which differs in {', '.join(others)}")
        before = state.get("data", self._data)
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

    def _position(self, values: dict[str, Any], epochs: int) -> Position:
        """That of a checkpoint, if this run can be there; batches are counted when they are gone through."""
        position = Position(**values)
        number, epoch, batch = position.experience, position.epoch, position.batch
        if not all(type(value) is int and value >= 0 for value in (number, epoch or 0, batch)):
            raise ValueError(f"{values} is no position")
        if number >= len(self._benchmark.train_stream) or (epoch or 0) >= epochs:
            raise ValueError(f"{values} is behind the end")
        return position

    def _check_measured(self) -> None:
        assert self.resumed is not None
        matrix = self.measured.matrix
        numbers = [self.measured.train_seconds, *(accuracy for row in matrix for accuracy in row)]
        if len(matrix) != self.resumed.experience or not all(type(number) is float for number in numbers):
            raise ValueError("its measurements are not those of the experiences before")

    def restore(self, strategy: SupervisedTemplate) -> None:
        """Put the loaded state into the strategy: once before training goes on, and again at the very position.

        What happens in between (Avalanche prepares the experience) is what happened before the position too; see
        `OwnParts` for parts of which this is not known.
        """
        if self._loaded is None or self.resumed is None:
            return
        state, tensors = self._loaded
        begun = list(self._benchmark.train_stream)[: self.resumed.experience + 1]
        with self.refusing_misfits():
            decode_strategy(state["strategy"], strategy, tensors, self._items, begun)

    def refusing_misfits(self) -> "_Misfits":
        """A context manager in which errors of wrong content become one sentence."""
        return _Misfits(f"The checkpoint in {self._files.folder} does not fit this run")

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Until what was restored has been used for the rest of an experience, errors may be due to it."""
        try:
            yield
        except (TypeError, LookupError, AttributeError, RuntimeError, OverflowError) as error:
            if self.resumed is None or isinstance(error, torch.OutOfMemoryError):
                raise
            words = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ConfigError(
                f"The run cannot go on from the checkpoint in {self._files.folder} ({words}; --debug shows where): "
                "remove it to begin anew."
            ) from error

    def _where(self, versions: dict[str, str]) -> str:
        assert self.resumed is not None
        number, epoch, batch = self.resumed.experience, self.resumed.epoch, self.resumed.batch
        others = [f"{package} {old}" for package, old in versions.items() if self._versions.get(package) != old]
        caution = f" (written with {', '.join(others)}: numbers may differ)" if others else ""
        place = "trained" if epoch is None else f"epoch {epoch + 1}, batch {batch}"
        return f"  resumed at experience {number + 1}, {place}{caution}"

    # ---- batches ----------------------------------------------------------------------------------------------------

    def batches(self, strategy: SupervisedTemplate, loader: Any) -> "Batches":
        """The batches of the experience that the strategy is about to train on."""
        return Batches(self, strategy, loader)

    def first_iteration_begins(self) -> None:
        """From here until the experience is saved, an end must wait for a checkpoint.

        Between two iterations there may be much work without a position in it: what methods do after an epoch, or
        after the experience.
        """
        self._termination.waits = True


class _Misfits:
    """Turns what wrong content of a checkpoint causes into one sentence."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, _WRONG_CONTENT) and not isinstance(error, ConfigError):
            words = " ".join(f"{error}".split())
            raise ConfigError(f"{self._what} ({words}): remove it to begin anew.") from error


class Batches:
    """The batches of one experience, epoch by epoch, each drawn with the loaders' own random states.

    Attributes:
        epoch: of the next iteration over it.
    """

    def __init__(self, checkpoints: Checkpoints, strategy: SupervisedTemplate, loader: Any) -> None:
        self._checkpoints, self._strategy, self._loader = checkpoints, strategy, loader
        resumed = checkpoints.resumed
        inside = resumed is not None and resumed.epoch is not None
        self.epoch = resumed.epoch or 0 if inside and resumed is not None else 0
        self._skipped = resumed.batch if inside and resumed is not None else 0
        self.is_resumed = inside

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        checkpoints, strategy = self._checkpoints, self._strategy
        number, epoch = checkpoints.number, self.epoch
        at_start = checkpoints.randomness.state
        iterator, done = iter(self._loader), 0
        while self._skipped:
            with checkpoints.refusing_misfits():
                if self._next(iterator) is _END:
                    raise ValueError(f"it is behind batch {done}, the last one of the epoch")
            done, self._skipped = done + 1, self._skipped - 1
            if not self._skipped:
                checkpoints.restore(strategy)
        checkpoints.first_iteration_begins()
        while (batch := self._next(iterator)) is not _END:
            yield batch
            done += 1
            checkpoints.iteration_done(strategy, Position(number, epoch, done), at_start)

    def _next(self, iterator: Iterator[Any]) -> Any:
        with self._checkpoints.randomness.use():
            return next(iterator, _END)


class ResumableTraining:
    """What lets a strategy's training begin in the middle of an experience: stands before its class.

    Attributes:
        checkpoints: set before training.
    """

    checkpoints: Checkpoints
    dataloader: Any
    train_epochs: Any
    training_epoch: Any
    _before_training_epoch: Any
    _after_training_epoch: Any
    _stop_training: Any

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        """As Avalanche's, but for the first epoch and the batches."""
        batches = self.dataloader = self.checkpoints.batches(self, self.dataloader)
        for epoch in range(batches.epoch, self.train_epochs):
            if not (batches.is_resumed and epoch == batches.epoch):
                self._before_training_epoch(**kwargs)
            batches.epoch, batches.is_resumed = epoch, False
            if self._stop_training:
                self._stop_training = False
                break
            self.training_epoch(**kwargs)
            self._after_training_epoch(**kwargs)


class ResumableNaive(ResumableTraining, Naive):
    """Fine-tuning, experience by experience."""


def resumable(kind: type[SupervisedTemplate]) -> type[SupervisedTemplate]:
    """The class of a user's strategy, made resumable within experiences if its training loop is Avalanche's.

    A loop of its own may go through the batches in any way, so that no position in it can be told: such a class
    comes back as it is.
    """
    loops = ("_train_exp", "training_epoch")
    if any(getattr(kind, loop) is not getattr(SupervisedTemplate, loop) for loop in loops):
        return kind
    return type(kind.__name__, (ResumableTraining, kind), {})
