"""The run directory: which configuration it belongs to, what was measured when, and the result."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ftp_cl.runs.checkpoint_files import FOLDER
from ftp_cl.runs.config import ConfigError, literal
from ftp_cl.runs.files import is_temporary, read_file, replace_files
from ftp_cl.runs.loggers import LOGGER_FOLDERS
from ftp_cl.runs.output import sentence
from ftp_cl.runs.records import CONFIG_FILE, EVENTS_FILE, RESULT_FILE
from ftp_cl.runs.schema import NOT_IDENTITY
from ftp_cl.runs.status import ERROR_FILE, LOCK_FILE

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE, BACKBONE_FILE = "weights.safetensors", "backbone.safetensors"

CLASSES = "classes"
"""In the metadata of weights.safetensors."""

RUNS = Path("runs")
"""Where runs go that name no `out`."""

_LONGEST_NAME = 200  # bytes; file systems take 255


def run_directory(overrides: Sequence[str], repeats: Path | None = None) -> Path:
    """Where a run goes that names no `out`: runs/ and the overrides, which is what differs between runs.

    Args:
        overrides: as on the command line.
        repeats: the result.json whose run is repeated with these overrides.
    """
    silent = {*NOT_IDENTITY, "hydra"}  # first parts of keys
    telling = sorted(word for word in overrides if re.split("[=./]", word.lstrip("+~"))[0] not in silent)
    if repeats is not None:
        telling.insert(0, f"{repeats.absolute().parent.name}-again")
    name = ",".join(re.sub(r"[^\w.,=+\[\]-]", "_", word) for word in telling) or "default"
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name[:100]}...{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return RUNS / name


class RunDirectory:
    """Files of one run: `config.yaml` first, `metrics.jsonl` line by line, `result.json` at the end, whole.

    A directory belongs to one configuration. With the same one, a finished run is recognised and an unfinished one
    starts again or is resumed. Whoever asks or writes holds the directory's lock.

    Args:
        path: of the directory, which exists when it is asked or written.
        config: resolved; keys that change no number (`NOT_IDENTITY`) may differ.

    Attributes:
        weights_path, result_path, events_path: where these files are, or will be.
        identity: the keys and values that make two runs the same, plain.
        listeners: are told of each event after it was written.
    """

    def __init__(self, path: Path, config: DictConfig) -> None:
        self.path = path
        self.weights_path, self.result_path, self.events_path = (
            path / name for name in (WEIGHTS_FILE, RESULT_FILE, EVENTS_FILE)
        )
        self.identity = _identity(OmegaConf.to_container(config, resolve=True))
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._is_new = False

    def check(self) -> None:
        """Refuse a directory of something else.

        Raises:
            ConfigError: it holds another configuration, or files of something else.
        """
        for name in (CONFIG_FILE, EVENTS_FILE, RESULT_FILE, ERROR_FILE, WEIGHTS_FILE, BACKBONE_FILE):
            if (self.path / name).exists() and not (self.path / name).is_file():
                raise ConfigError(f"{self.path / name} is no regular file: remove it, or choose another directory.")
        if (self.path / CONFIG_FILE).exists():
            self._refuse_other(CONFIG_FILE, yaml.safe_load)
        elif any(not (found.name in (LOCK_FILE, ERROR_FILE) or is_temporary(found)) for found in self.path.iterdir()):
            raise ConfigError(
                f"{self.path} holds files but no {CONFIG_FILE} of a run: choose another directory, out=..."
            )
        if self.result_path.exists():
            self._refuse_other(RESULT_FILE, lambda content: json.loads(content)["config"])

    def _refuse_other(self, name: str, read: Callable[[bytes], Any]) -> None:
        try:
            found = read(read_file(self.path / name))
            differ = differing(found, self.identity)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
            raise ConfigError(f"{self.path / name} is not a run's: choose another directory, out=...") from error
        if differ:
            raise ConfigError(
                f"{self.path} holds a run with another configuration (it differs in {', '.join(differ)}): choose "
                "another directory, out=..., or remove it."
            )

    def begin(self) -> None:
        """Make the directory the run's, without events: those of an unfinished run would mix with this one's."""
        self._is_new = not (self.path / CONFIG_FILE).exists()
        if self._is_new:
            text = OmegaConf.to_yaml(OmegaConf.create(literal(self.identity)), resolve=True)
            replace_files({self.path / CONFIG_FILE: text.encode()})
        self.events_path.write_text("")

    def withdraw(self) -> None:
        """Undo `begin` if nothing was measured: a run that is refused late must not be in a corrected one's way."""
        is_measured = self.events_path.exists() and self.events_path.stat().st_size > 0
        if self._is_new and not is_measured and not (self.path / FOLDER).exists():
            for folder in LOGGER_FOLDERS:
                shutil.rmtree(self.path / folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.events_path.unlink(missing_ok=True)
                (self.path / CONFIG_FILE).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what killed runs were writing, and the error of a failed one, which is now tried again."""
        (self.path / ERROR_FILE).unlink(missing_ok=True)
        for file in self.path.rglob(".*.tmp"):
            if is_temporary(file):
                file.unlink(missing_ok=True)

    def write_error(self, error: Exception) -> None:
        """Write error.json, for people and `ftp-cl watch`, if there is room: a full disk must not hide the error."""
        content = {
            "error": sentence(error),
            "traceback": "".join(traceback.format_exception(error)),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        with contextlib.suppress(OSError):
            replace_files({self.path / ERROR_FILE: json.dumps(content, indent=1).encode()})

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

    def write_weights(self, model: "nn.Module", classes: Sequence[str | None]) -> None:
        """Write weights.safetensors, the model's state dict, and backbone.safetensors if the backbone is timm's.

        Args:
            model: its final weights.
            classes: names of the classes, by their numbers; None for numbers without one.
        """
        from safetensors.torch import save  # takes a while, as what follows
        from torch.nn import Module

        from ftp_cl.models.ensemble import TwoBackbones
        from ftp_cl.models.lora import merged

        files = {self.weights_path: save(_tensors(model), {CLASSES: json.dumps(list(classes))})}
        backbone = getattr(model, "backbone", None)
        if isinstance(backbone, TwoBackbones):  # the second is as it came
            backbone = backbone.first
        if isinstance(backbone, Module) and hasattr(backbone, "pretrained_cfg"):
            files[self.path / BACKBONE_FILE] = save(_tensors(merged(backbone)))
        replace_files(files)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json, whole or not at all; if numbers are not finite, they become null and `diverged` true."""
        finite = _finite(result)
        result = finite if finite == result else {**finite, "diverged": True}
        replace_files({self.result_path: (json.dumps(result, indent=1, allow_nan=False) + "\n").encode()})


def _tensors(model: "nn.Module") -> "dict[str, Tensor]":
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}


class OthersDirectory(RunDirectory):
    """That of a process which is not the first of several: the first checks and writes."""

    def _nothing(self, *args: Any, **values: Any) -> None:
        """Nothing."""

    check = begin = withdraw = remove_leftovers = write_error = add_event = _nothing


def _finite(value: Any) -> Any:
    """The same value with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finite(item) for item in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _identity(config: Any) -> dict[str, Any]:
    """What makes two runs the same."""
    return {key: value for key, value in config.items() if key not in NOT_IDENTITY}


def differing(found: Any, identity: dict[str, Any]) -> list[str]:
    """The keys in which a configuration that was found is not a run's; null stands for a key that is newer than it."""
    old, new = _without_nulls(_identity(found)), _without_nulls(identity)
    return sorted(str(key) for key in {**old, **new} if old.get(key) != new.get(key))


def _without_nulls(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_nulls(value) for key, value in node.items() if value is not None}
