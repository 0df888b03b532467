"""Values of a run <-> what `torch.load(weights_only=True)` reads, which runs no code that the file chooses.

Plain values, lists, tuples, sets, dicts and tensors stand as they are; a dict with the key `KIND` stands for the rest.
"""

import bisect
import copy
import inspect
import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training import storage_policy
from avalanche.training.utils import ParamData
from torch import Tensor, nn

from ftp_cl.optim.next_adapter import restore_frozen

KIND = "ftp_cl.kind"
SOURCE_ATTRIBUTE = "position_in_benchmark"
"""Name of the data attribute by which a dataset made of a benchmark's items says which items these are."""

_DEPTH = 40  # of nested values; more is a cycle
_PLAIN = (type(None), bool, int, float, str, torch.Size, torch.device, torch.dtype)

# What holds no state that training changes: it stays as the configuration made it.
_FIXED = (PurePath, type(Ellipsis))

# Objects that plugins make while training; everything else is there again once the plugins are built.
_BUFFERS = ("ReservoirSamplingBuffer", "ExperienceBalancedBuffer", "ClassBalancedBuffer")
_MADE_ANEW = {name: partial(object.__new__, getattr(storage_policy, name)) for name in _BUFFERS}
_MADE_ANEW["ParamData"] = partial(ParamData, "", (0,))


class CannotSave(TypeError):
    """A value has no form in a checkpoint; the message says where it was met and what it is."""


class BenchmarkItems:
    """Numbers the items of all experiences of a benchmark, so that datasets made of them can be told by numbers.

    Args:
        streams: Avalanche's streams; their datasets get a data attribute that subsets and concatenations carry along.
    """

    def __init__(self, streams: Iterable[Any]) -> None:
        self._experiences = [experience for stream in streams for experience in stream]
        self._starts = [0]
        for experience in self._experiences:
            start, size = self._starts[-1], len(experience.dataset)
            self._starts.append(start + size)
            numbers = DataAttribute(list(range(start, start + size)), SOURCE_ATTRIBUTE)  # type: ignore[arg-type]
            # As `update_data_attribute`, but in place: some streams of Avalanche make their experiences anew each time.
            dataset = experience.dataset
            dataset._data_attributes = {**dataset._data_attributes, SOURCE_ATTRIBUTE: numbers}
            setattr(dataset, SOURCE_ATTRIBUTE, numbers)

    def numbers(self, dataset: AvalancheDataset) -> list[int] | None:
        """The number of each item of a dataset, or None if some come from elsewhere."""
        if len(dataset) == 0:
            return []
        found = getattr(dataset, SOURCE_ATTRIBUTE, None)
        return None if found is None else [int(number) for number in found]

    def dataset(self, numbers: Sequence[int]) -> AvalancheDataset:
        """The dataset of these items, in this order.

        Raises:
            ValueError: for a number that the benchmark does not have.
        """
        if any(not 0 <= number < self._starts[-1] for number in numbers):
            raise ValueError("it names items that the benchmark does not have")
        parts = []
        for owner, own in itertools.groupby(numbers, lambda number: bisect.bisect(self._starts, number) - 1):
            parts.append(self._experiences[owner].dataset.subset([number - self._starts[owner] for number in own]))
        return parts[0] if len(parts) == 1 else concat_datasets(parts)


class Packing:
    """Packs values, and unpacks them into existing objects where there are any.

    Args:
        items: of the benchmark, for datasets.
    """

    def __init__(self, items: BenchmarkItems) -> None:
        self._items = items

    def pack(self, value: Any, where: str, depth: int = 0) -> Any:
        """What stands for `value` in the file, with its tensors themselves; `where` names it in errors.

        Raises:
            CannotSave: it, or something in it, has no form in a checkpoint.
        """
        if type(value) in _PLAIN:
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, Tensor):
            return _plain_tensor(value, where)
        if depth > _DEPTH:
            raise CannotSave(f"{where} contains itself")

        def inner(part: Any, name: Any) -> Any:
            return self.pack(part, f"{where}.{name}", depth + 1)

        if isinstance(value, list | tuple):
            parts = [inner(part, i) for i, part in enumerate(value)]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, set | frozenset):
            return {_plain_key(part, where) for part in value}
        if isinstance(value, dict):
            return {_plain_key(key, where): inner(part, key) for key, part in value.items()}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            array = torch.from_numpy(np.array(value))
            return {KIND: "array", "values": array, "is_scalar": value.ndim == 0}
        if inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, _FIXED):
            return {KIND: "fixed"}
        if isinstance(value, torch.Generator):
            return {KIND: "generator", "state": value.get_state()}
        if isinstance(value, AvalancheDataset):
            if (numbers := self._items.numbers(value)) is None:
                raise CannotSave(f"{where} is a dataset of items that are not the benchmark's")
            return {KIND: "dataset", "numbers": torch.tensor(numbers, dtype=torch.int64)}
        if all(callable(getattr(value, method, None)) for method in ("state_dict", "load_state_dict")):
            kind, state = "state_dict", value.state_dict()
        elif type(value).__module__.split(".")[0] in ("avalanche", "ftp_cl"):
            kind, state = "attributes", vars(value)
        else:
            raise CannotSave(f"{where} is a {type(value).__name__}")
        return {KIND: kind, "class": type(value).__name__, "state": self.pack(dict(state), where, depth + 1)}

    def unpack(self, packed: Any, existing: Any = None, strategy: Any = None) -> Any:
        """The inverse of `pack`.

        Args:
            packed: as it was read.
            existing: what the value replaces; it is kept where it holds more than data.
            strategy: whose model modules that plugins made are copies of; in reach of parts that ask for it.

        Raises:
            ValueError: it does not fit, and how.
        """
        if isinstance(packed, list | tuple | set) and type(packed) is not torch.Size:
            return type(packed)(self.unpack(part, None, strategy) for part in packed)
        if isinstance(packed, torch.device) and packed.type != "cpu" and strategy is not None:
            return strategy.device  # of the several processes of a run, the first has written it
        if not isinstance(packed, dict):
            return packed
        kind = packed.get(KIND)
        if kind is None:  # in place, so that a dict with a factory keeps it
            result = existing if isinstance(existing, dict) else {}
            unpacked = {key: self.unpack(part, result.get(key), strategy) for key, part in packed.items()}
            result.clear()
            result.update(unpacked)
            return result
        if kind == "fixed":
            return existing
        if kind == "array":
            return packed["values"].numpy()[() if packed["is_scalar"] else ...]
        if kind == "generator":
            generator = existing if isinstance(existing, torch.Generator) else torch.Generator()
            return generator.set_state(packed["state"])
        if kind == "dataset":
            return self._items.dataset(packed["numbers"].tolist())
        if kind not in ("state_dict", "attributes"):
            raise ValueError("it has a value of an unknown kind")
        return self._unpack_object(packed, existing, strategy)

    def _unpack_object(self, packed: dict[str, Any], existing: Any, strategy: Any) -> Any:
        kind, name = packed[KIND], packed["class"]
        if existing is None:
            is_known = kind == "attributes" and name in _MADE_ANEW
            existing = _MADE_ANEW[name]() if is_known else copy.deepcopy(getattr(strategy, "model", None))
        check_class(name, existing)
        if kind == "attributes":
            self.unpack(packed["state"], vars(existing), strategy)
        elif isinstance(existing, nn.Module):
            load_resized(existing, self.unpack(packed["state"]))
        else:
            load_part(existing, "load_state_dict", self.unpack(packed["state"]), strategy)
        return existing


def _plain_tensor(tensor: Tensor, where: str) -> Tensor:
    """A tensor without subclass and graph, and without the rest of the memory that it may be a view of."""
    if tensor.layout is not torch.strided or tensor.is_complex() or tensor.is_quantized:
        raise CannotSave(f"{where} is a tensor of a kind that is not saved")
    values = tensor.detach().as_subclass(Tensor)
    if values.untyped_storage().nbytes() != values.nbytes:
        values = values.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, tensor.requires_grad)
    return values.requires_grad_(tensor.requires_grad)


def _plain_key(key: Any, where: str) -> Any:
    """What stands for a key of a dict, or for what is in a set."""
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, tuple):
        return tuple(_plain_key(part, where) for part in key)
    if isinstance(key, str) and key != KIND:
        return str.__str__(key)
    if type(key) not in _PLAIN or key == KIND:
        raise CannotSave(f"{where} has {key!r:.50} as a key or in a set")
    return key


def load_part(part: Any, method: str, state: Any, strategy: Any) -> None:
    """Let a part take back its state, with the strategy if its method has a parameter of this name."""
    load = getattr(part, method)
    if method == "restore_state" or "strategy" in inspect.signature(load).parameters:
        load(state, strategy)
    else:
        load(state)


def load_resized(module: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load a state dict, giving a module its shapes, those of heads that have grown, and its frozen adapters.

    Raises:
        ValueError: names are missing on either side, or a tensor differs in more than its number of rows.
    """
    restore_frozen(module, state_dict)
    owners = dict(module.named_modules())
    for name, value in state_dict.items():
        owner_name, _, own_name = name.rpartition(".")
        owner = owners.get(owner_name)
        current = getattr(owner, own_name, None)
        if not isinstance(current, Tensor):
            continue
        if value.dtype != current.dtype or value.dim() != current.dim() or value.shape[1:] != current.shape[1:]:
            found, expected = (f"{list(tensor.shape)} of {tensor.dtype}" for tensor in (value, current))
            raise ValueError(f"{name} is {found} where the run has {expected}")
        if current.shape != value.shape:
            resized = torch.empty_like(value, device=current.device)
            is_parameter = isinstance(current, nn.Parameter)
            setattr(owner, own_name, nn.Parameter(resized, current.requires_grad) if is_parameter else resized)
    try:
        module.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None


def check_class(name: str, existing: Any) -> None:
    """Raise a ValueError if a checkpoint has an object of another class."""
    if type(existing).__name__ != name:
        raise ValueError(f"it has a {name} where the run has a {type(existing).__name__}")
