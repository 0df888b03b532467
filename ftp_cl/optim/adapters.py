"""Which of a model's parameters are factors of adapters that FTP keeps in balls, and which adapters it refuses."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ftp_cl.optim.adapter_kinds import Adapter, Unbounded, adapters_in

_FACTORS = {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "vera_lambda_b", "vera_lambda_d"}
_FACTORS |= {f"hada_w{number}_{side}" for number in "12" for side in "ab"}


class Adapters:
    """A model's adapters by the factors that are written.

    Args:
        model: what may have some.
        names: of all its parameters, canonical.
        excluded: names of those that are not projected; an adapter is excluded if any of its factors is. The names of
            the other factors of adapters that are projected are added.
        known: names of adapters that have been bounded before.

    Raises:
        ValueError: for an adapter that is trained, not excluded, and whose change cannot be bounded.
    """

    def __init__(
        self, model: nn.Module, names: Mapping[nn.Parameter, str], excluded: set[str], known: Collection[str] = ()
    ) -> None:
        self._of: dict[nn.Parameter, Adapter] = {}
        found: list[tuple[Adapter | Unbounded, list[nn.Parameter], set[str]]] = []
        for adapter in adapters_in(model):
            parameters = adapter.parameters if isinstance(adapter, Unbounded) else adapter.factors()
            if own := {names[parameter] for parameter in parameters if parameter in names}:
                found.append((adapter, parameters, own))
        left_out = {memory_of(parameters[0]) for _, parameters, own in found if not own.isdisjoint(excluded)} - {None}
        by_memory: dict[Any, Adapter] = {}
        for adapter, parameters, own in found:
            memory = memory_of(parameters[0])
            if memory in left_out or not own.isdisjoint(excluded):
                excluded |= own
                continue
            trained = any(parameter.requires_grad for parameter in parameters)
            if isinstance(adapter, Unbounded):
                if trained:
                    raise ValueError(
                        f"{adapter.where} has an adapter of a kind whose change FTP cannot bound, {adapter.kind}: it "
                        f"knows plain LoRA, LoHa and VeRA. Exclude it to leave it free, for example "
                        f"exclude='{min(own)}'."
                    )
                continue
            factor = parameters[0]
            adapter.name = names[factor]
            if trained and adapter.name not in known:
                check(adapter)
            first = adapter if memory is None else by_memory.setdefault(memory, adapter)
            first.written[factor] = adapter
            self._of[factor] = first
            excluded |= own - {first.name}

    def of(self, parameter: nn.Parameter) -> Adapter | None:
        """The adapter of which a parameter is the factor that is written."""
        return self._of.get(parameter)

    def by_name(self) -> dict[str, Adapter]:
        """By the name under which radius and state are kept."""
        return {adapter.name: adapter for adapter in self._of.values()}


def check(adapter: Adapter) -> None:
    """Raise a ValueError for one whose change FTP cannot bound."""
    if problem := adapter.problem():
        raise ValueError(f"Adapter {adapter.key!r} of {adapter.where} {problem}.")


def memory_of(parameter: nn.Parameter) -> tuple[int, int] | None:
    """Where its numbers are; peft ties adapters as several parameters over one memory."""
    if hasattr(parameter, "placements") or parameter.is_meta or not parameter.numel():
        return None
    return parameter.data_ptr(), parameter.numel()


def check_given_anchor(anchor: Mapping[str, Any], adapters: Adapters, names: Mapping[nn.Parameter, str]) -> None:
    """Raise a ValueError if weights to stay near have an adapter that changes something: its anchor is no change."""
    for adapter in set(adapters.by_name().values()):
        values = [anchor.get(names[factor]) for factor in adapter.factors() if factor in names]
        if values and all(isinstance(value, Tensor) and value.any() for value in values):
            raise ValueError(
                f"The anchor has weights of adapter {adapter.key!r} of {adapter.where}, and FTP keeps an adapter's "
                "change near 0: next_adapter(model) keeps what it has learned in a frozen one."
            )


def has_factors(names: Iterable[str]) -> bool:
    """Whether some of these are names of adapters' factors."""
    return any(not _FACTORS.isdisjoint(name.split(".")) for name in names)
