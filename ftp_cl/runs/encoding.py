"""Values of a run <-> JSON and named tensors. Reading them back runs no code that the file chooses."""

import copy
import inspect
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training import storage_policy
from avalanche.training.utils import ParamData
from torch import Tensor, nn

SOURCE_ATTRIBUTE = "position_in_benchmark"
"""Name of the data attribute by which a dataset made of a benchmark's items says which items these are."""

_DEPTH = 40  # of nested values; more is a cycle

# What holds no state that training changes: it stays as the configuration made it.
_FIXED = (torch.device, torch.dtype, PurePath, type(Ellipsis))

# Objects that plugins make while training; everything else is there again once the plugins are built.
_MADE_ANEW = {
    kind.__name__: kind
    for kind in (
        storage_policy.ReservoirSamplingBuffer,
        storage_policy.ExperienceBalancedBuffer,
        storage_policy.ClassBalancedBuffer,
    )
}


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
            _add_attribute(experience.dataset, numbers)

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
        owners = np.searchsorted(self._starts, numbers, side="right") - 1 if len(numbers) else np.array([], dtype=int)
        cuts = np.flatnonzero(np.diff(owners)) + 1
        parts = []
        for span in np.split(np.arange(len(numbers)), cuts) if len(numbers) else []:
            owner = int(owners[span[0]])
            local = [numbers[i] - self._starts[owner] for i in span]
            parts.append(self._experiences[owner].dataset.subset(local))
        return parts[0] if len(parts) == 1 else concat_datasets(parts)


def _add_attribute(dataset: AvalancheDataset, attribute: DataAttribute) -> None:
    """As `update_data_attribute`, but in place: some of Avalanche's streams make their experiences anew each time."""
    dataset._data_attributes = {**dataset._data_attributes, attribute.name: attribute}
    setattr(dataset, attribute.name, attribute)


class Encoder:
    """Turns values into JSON and named tensors.

    Args:
        items: of the benchmark, for datasets.

    Attributes:
        tensors: what `encode` has put aside, on the CPU and contiguous.
    """

    def __init__(self, items: BenchmarkItems) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._items = items

    def encode(self, value: Any, where: str, depth: int = 0) -> Any:
        """The JSON of `value`; `where` names it in errors and names its tensors.

        Raises:
            CannotSave: it, or something in it, has no form in a checkpoint.
        """
        if value is None or isinstance(value, bool | str) or type(value) in (int, float):
            return value
        if depth > _DEPTH:
            raise CannotSave(f"{where} contains itself")

        def inner(part: Any, name: Any) -> Any:
            return self.encode(part, f"{where}.{name}", depth + 1)

        if isinstance(value, list):
            return [inner(part, i) for i, part in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": [inner(part, i) for i, part in enumerate(value)]}
        if isinstance(value, set | frozenset):
            return {"set": [inner(part, i) for i, part in enumerate(value)]}
        if isinstance(value, dict):
            return {"dict": [[inner(key, "key"), inner(part, key)] for key, part in value.items()]}
        if isinstance(value, Tensor):
            kind = "parameter" if isinstance(value, nn.Parameter) else "tensor"
            return {kind: self._put(value, where), "requires_grad": value.requires_grad}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            return {"array": self._put(torch.from_numpy(np.array(value)), where), "scalar": value.ndim == 0}
        return self._encode_object(value, where, depth)

    def _encode_object(self, value: Any, where: str, depth: int) -> Any:
        if inspect.isroutine(value) or inspect.isclass(value) or isinstance(value, _FIXED):
            return {"fixed": True}
        if isinstance(value, AvalancheDataset):
            numbers = self._items.numbers(value)
            if numbers is None:
                raise CannotSave(f"{where} is a dataset of items that are not the benchmark's")
            return {"dataset": numbers}
        if isinstance(value, ParamData):
            return {"importance": self.encode([value.name, str(value.device), value.data], where, depth + 1)}
        if isinstance(value, torch.Generator):
            return {"generator": self._put(value.get_state(), where)}
        if isinstance(value, nn.Module):
            state, kind = value.state_dict(), "module"
        elif callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
            state, kind = value.state_dict(), "state_dict"
        elif type(value).__module__.split(".")[0] in ("avalanche", "ftp_cl"):
            state, kind = vars(value), "attributes"
        else:
            raise CannotSave(f"{where} is a {type(value).__name__}")
        return {kind: self.encode(dict(state), where, depth + 1), "class": type(value).__name__}

    def _put(self, tensor: Tensor, where: str) -> dict[str, Any]:
        """Put a tensor aside; its memory order is kept, because sums depend on it."""
        if tensor.is_sparse or tensor.is_complex() or tensor.is_quantized:
            raise CannotSave(f"{where} is a tensor of a kind that is not saved")
        name = where
        while name in self.tensors:
            name += "'"
        strides = tensor.stride()
        order = sorted(range(tensor.dim()), key=lambda d: (-strides[d], d))
        self.tensors[name] = tensor.detach().permute(order).cpu().contiguous().clone()
        return {"name": name, "order": order, "device": str(tensor.device)}


class Decoder:
    """Turns the output of `Encoder` into values again, into existing objects where there are any.

    Args:
        tensors: by name.
        items: of the benchmark.
        model: what modules that plugins made are copies of.

    Everything that does not fit raises a ValueError that says what.
    """

    def __init__(self, tensors: dict[str, Tensor], items: BenchmarkItems, model: nn.Module) -> None:
        self._tensors, self._items, self._model = tensors, items, model

    def decode(self, code: Any, existing: Any = None) -> Any:
        """The value of `code`; `existing` is what it replaces, and is reused where it holds more than data."""
        if code is None or isinstance(code, bool | str | int | float):
            return code
        if isinstance(code, list):
            return [self.decode(part) for part in code]
        if isinstance(code, dict):
            for kind in _KINDS:
                if kind in code:
                    return getattr(self, f"_{kind}")(code, existing)
        raise ValueError("it has a value of an unknown kind")

    def _tuple(self, code: Any, existing: Any) -> Any:
        return tuple(self.decode(part) for part in code["tuple"])

    def _set(self, code: Any, existing: Any) -> Any:
        return {self.decode(part) for part in code["set"]}

    def _dict(self, code: Any, existing: Any) -> Any:
        """In place, so that a dict with a factory keeps it."""
        values = [(self.decode(key), value) for key, value in code["dict"]]
        before = dict(existing) if isinstance(existing, dict) else {}
        decoded = {key: self.decode(value, before.get(key)) for key, value in values}
        if not isinstance(existing, dict):
            return decoded
        existing.clear()
        existing.update(decoded)
        return existing

    def _tensor(self, code: Any, existing: Any) -> Any:
        return self._take(code["tensor"]).requires_grad_(code["requires_grad"])

    def _parameter(self, code: Any, existing: Any) -> Any:
        return nn.Parameter(self._take(code["parameter"]), requires_grad=code["requires_grad"])

    def _array(self, code: Any, existing: Any) -> Any:
        array = self._take(code["array"]).numpy()
        return array[()] if code["scalar"] else array

    def _fixed(self, code: Any, existing: Any) -> Any:
        return existing

    def _dataset(self, code: Any, existing: Any) -> Any:
        return self._items.dataset(code["dataset"])

    def _importance(self, code: Any, existing: Any) -> Any:
        name, device, data = self.decode(code["importance"])
        return ParamData(name, data.shape, init_tensor=data, device=device)

    def _generator(self, code: Any, existing: Any) -> Any:
        generator = existing if isinstance(existing, torch.Generator) else torch.Generator()
        return generator.set_state(self._take(code["generator"]))

    def _module(self, code: Any, existing: Any) -> Any:
        module = existing if isinstance(existing, nn.Module) else copy.deepcopy(self._model)
        _same_class(code, module)
        load_resized(module, self.decode(code["module"]))
        return module

    def _state_dict(self, code: Any, existing: Any) -> Any:
        _same_class(code, existing)
        existing.load_state_dict(self.decode(code["state_dict"]))
        return existing

    def _attributes(self, code: Any, existing: Any) -> Any:
        if existing is None and code["class"] in _MADE_ANEW:
            existing = object.__new__(_MADE_ANEW[code["class"]])
        _same_class(code, existing)
        self._dict({"dict": code["attributes"]["dict"]}, vars(existing))
        return existing

    def _take(self, code: dict[str, Any]) -> Tensor:
        if code["name"] not in self._tensors:
            raise ValueError(f"the tensor {code['name']} is missing")
        tensor, order = self._tensors[code["name"]], code["order"]
        # A copy: what lies in a mapped file is not aligned as torch aligns, and kernels may then round otherwise.
        tensor = tensor.clone().permute([order.index(d) for d in range(len(order))])
        return tensor.to(code["device"])


_KINDS = (
    *("tuple", "set", "dict", "tensor", "parameter", "array", "fixed", "dataset"),
    *("importance", "generator", "module", "state_dict", "attributes"),
)


def load_resized(module: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Load a state dict, giving parameters and buffers its shapes: those of heads that have grown.

    Raises:
        ValueError: names are missing on either side, or a tensor differs in more than its number of rows.
    """
    for name, value in state_dict.items():
        owner_name, _, own_name = name.rpartition(".")
        owner = dict(module.named_modules()).get(owner_name)
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


def _same_class(code: dict[str, Any], existing: Any) -> None:
    if type(existing).__name__ != code["class"]:
        raise ValueError(f"it has a {code['class']} where the run has a {type(existing).__name__}")
