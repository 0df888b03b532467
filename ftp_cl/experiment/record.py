"""The run directory: which configuration it belongs to, what was measured when, and the result."""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save
from torch import nn

from ftp_cl.experiment.config import ConfigError
from ftp_cl.report import CONFIG_FILE, EVENTS_FILE, LOCK_FILE, RESULT_FILE, is_temporary, replace_files

WEIGHTS_FILE = "weights.safetensors"

NOT_IDENTITY = ("out", "label", "resume", "checkpoint", "save_weights", "loggers", "objective")
"""Keys that say where a run goes, what it is called, and what is kept of it; no number depends on them."""

_LONGEST_NAME = 200  # bytes; file systems take 255


def run_directory(overrides: Sequence[str], repeats: str | None = None) -> Path:
    """Where a run goes that names no `out`: runs/ and the overrides, which is what differs between runs.

    Args:
        overrides: as on the command line.
        repeats: the result.json whose run is repeated with these overrides.
    """
    telling = [word for word in sorted(overrides) if _key(word) not in (*NOT_IDENTITY, "hydra")]
    if repeats is not None:
        telling.insert(0, f"{Path(repeats).absolute().parent.name}-again")
    name = ",".join(re.sub(r"[^\w.,=+\[\]-]", "_", word) for word in telling) or "default"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name[:100]}...{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return Path("runs") / name


def _key(override: str) -> str:
    """The first part of an override's key: `checkpoint` of `checkpoint.every_minutes=1`."""
    return re.split(r"[=./]", override.lstrip("+~"), maxsplit=1)[0]


class RunDirectory:
    """Files of one run: `config.yaml` first, `metrics.jsonl` line by line, `result.json` at the end, whole.

    A directory belongs to one configuration. With the same one, a finished run is recognised and an unfinished one
    starts again or is resumed.

    Args:
        path: made if it does not exist.
        config: resolved; keys that change no number (`NOT_IDENTITY`) may differ.

    Attributes:
        listeners: are told of each event after it was written.

    Raises:
        ConfigError: if the directory holds another configuration or files of something else, or cannot be written.
    """

    def __init__(self, path: Path, config: DictConfig) -> None:
        self.path = path
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        text = OmegaConf.to_yaml(_identity(config), resolve=True)
        try:
            path.mkdir(parents=True, exist_ok=True)
            existing = path / CONFIG_FILE
            if existing.exists():
                _refuse_other(existing, text)
            elif any(found.name != LOCK_FILE and not is_temporary(found) for found in path.iterdir()):
                raise ConfigError(
                    f"{path} holds files but no {CONFIG_FILE} of a run: choose another directory, out=..."
                )
            else:
                replace_files({existing: text.encode()})
        except OSError as error:
            raise ConfigError(f"{path} cannot be a run directory: {error.strerror}.") from error

    @property
    def weights_path(self) -> Path:
        """Where the final weights go, if they are kept."""
        return self.path / WEIGHTS_FILE

    @property
    def result_path(self) -> Path:
        """Where the result is, or will be."""
        return self.path / RESULT_FILE

    @property
    def events_path(self) -> Path:
        """Where the events are."""
        return self.path / EVENTS_FILE

    def remove_leftovers(self) -> None:
        """Remove what killed runs were writing; for the one process that holds the directory.

        Another one may be writing config.yaml, which it does before it finds the directory taken.
        """
        for file in self.path.rglob(".*.tmp"):
            if is_temporary(file) and not file.name.startswith(f".{CONFIG_FILE}."):
                file.unlink(missing_ok=True)

    def start_events(self) -> None:
        """Empty metrics.jsonl: those of an unfinished run before would mix with this one's."""
        self.events_path.write_text("")

    def sync_events(self) -> int:
        """Make sure that the events so far are on the disk; returns their size in bytes."""
        with self.events_path.open("a") as file:
            os.fsync(file.fileno())
            return file.tell()

    def add_event(self, event: str, **values: Any) -> None:
        """Append one line to metrics.jsonl, whole or not at all; numbers that are not finite become null.

        Raises:
            OSError: it cannot be written; `filename` is the file.
        """
        line = _finite({"event": event, **values})
        size = self.events_path.stat().st_size if self.events_path.exists() else 0
        try:
            with self.events_path.open("a") as file:
                file.write(json.dumps(line, allow_nan=False) + os.linesep)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.events_path, size)
            raise OSError(error.errno, error.strerror, str(self.events_path)) from error
        for listener in self.listeners:
            listener(line)

    def write_weights(self, model: nn.Module) -> None:
        """Write weights.safetensors: the model's state dict."""
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        replace_files({self.weights_path: save(tensors)})

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, whole or not at all; if numbers are not finite, they become null and `diverged` true."""
        finite = _finite(result)
        result = finite if finite == result else {**finite, "diverged": True}
        replace_files({self.result_path: (json.dumps(result, indent=1, allow_nan=False) + "\n").encode()})


def _finite(value: Any) -> Any:
    """The same value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finite(item) for item in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _identity(config: DictConfig) -> DictConfig:
    """What makes two runs the same."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in NOT_IDENTITY])


def _refuse_other(existing: Path, text: str) -> None:
    if existing.read_text() == text:
        return
    old, new = (_without_nulls(OmegaConf.to_container(c)) for c in (OmegaConf.load(existing), OmegaConf.create(text)))
    differ = sorted(str(key) for key in {**old, **new} if old.get(key) != new.get(key))
    if not differ:
        return  # null stands for a key that is newer than the run
    raise ConfigError(
        f"{existing.parent} holds a run with another configuration (it differs in {', '.join(differ)}): choose another "
        "directory, out=..., or remove it."
    )


def _without_nulls(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_nulls(value) for key, value in node.items() if value is not None}
