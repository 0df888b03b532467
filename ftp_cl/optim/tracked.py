"""Which of a model's parameters are projected, and under which names."""

from collections.abc import Collection
from typing import Any

from torch import nn

from ftp_cl.optim.adapters import Adapters, has_factors
from ftp_cl.optim.checks import check_precision
from ftp_cl.optim.names import Exclude, NamedParameters, aliases, exclude_entries, match, named_list
from ftp_cl.optim.sharding import sharding_of
from ftp_cl.optim.told import Told, and_more
from ftp_cl.projection import Sharding


class Tracked:
    """A model's parameters by canonical name, as they were taken last.

    Attributes:
        names: of each parameter; the first one of a tied parameter.
        excluded: names of those that are not projected.
        shardings: how those are spread over processes that are.
        adapters: those of the model.
        found: what else was found out about parameters, by id; empty again when they are taken anew.
    """

    def __init__(self, method: str, told: Told) -> None:
        self._method, self._told = method, told
        self.model: nn.Module | None = None
        self._exclude: list[str | type[nn.Module]] = []
        self.names: dict[nn.Parameter, str] = {}
        self.excluded: set[str] = set()
        self.shardings: dict[str, Sharding] = {}
        self.adapters = Adapters(nn.Module(), {}, set())
        self.found: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "found": {}}

    def take(
        self, parameters: NamedParameters | None, exclude: Exclude | None = None, known: Collection[str] = ()
    ) -> None:
        """As `FTP.track`. `known`: names of adapters that have been bounded before."""
        parameters = self.model if parameters is None else parameters
        if parameters is None:
            raise ValueError("FTP was given named parameters, not a model: pass the current ones to track().")
        is_model = isinstance(parameters, nn.Module)
        if isinstance(parameters, nn.Module):
            self.model = parameters
        else:
            parameters = named_list(parameters)
        self._exclude = self._exclude if exclude is None else exclude_entries(exclude)
        excluded_names = match(self._exclude, parameters)
        self.names, self.excluded, self.shardings, self.found = {}, set(), {}, {}
        taken: set[str] = set()
        for parameter, names in aliases(parameters).items():
            if names[0] in taken:  # they would share anchor and radius
                raise ValueError(
                    f"Two parameters are called {names[0]!r}: put their modules into one nn.Module, or give each a "
                    f"name of its own, such as 'encoder.{names[0]}'."
                )
            taken.add(names[0])
            self.names[parameter] = names[0]
            if not excluded_names.isdisjoint(names):
                self.excluded.add(names[0])
        if isinstance(parameters, nn.Module):
            self.adapters = Adapters(parameters, self.names, self.excluded, known)
        for name, parameter in self.projected().items():
            if (sharding := sharding_of(name, parameter)) is not None:
                self.shardings[name] = sharding
            if parameter.requires_grad and self.adapters.of(parameter) is None:
                check_precision(name, parameter, self._method)
            if parameter.numel() == 0:
                self.excluded.add(name)
        self._tell(is_model)

    def _tell(self, is_model: bool) -> None:
        if not is_model and has_factors(self.names.values()):
            self._told.once(
                "adapters",
                "FTP was given an adapter's factors by name and keeps each of them near its start; given the model "
                "itself, it keeps the change that they make together in a ball.",
            )
        trained = {name for name, parameter in self.projected().items() if parameter.requires_grad}
        if copies := sorted(name for name in trained if ".modules_to_save." in name):  # peft trains a copy of these
            self._told.once(
                "modules_to_save",
                f"FTP projects {and_more(copies)}, trained in full beside the adapters; if that is a new classifier, "
                "exclude='*modules_to_save*' leaves it free.",
            )

    def projected(self) -> dict[str, nn.Parameter]:
        """By name, in the model's order, also those that are frozen now."""
        return {name: parameter for parameter, name in self.names.items() if name not in self.excluded}

    def name_of(self, parameter: nn.Parameter, known: Collection[str]) -> str:
        """Also of one that the model has gained; one from elsewhere gets a name and is excluded."""
        if parameter not in self.names and self.model is not None:
            self.take(None, known=known)
        if parameter not in self.names:
            # Remember it, so that a parameter from elsewhere costs one look and one warning.
            name = self.names[parameter] = f"<unnamed {len(self.names)}>"
            self.excluded.add(name)
            self._told.once(
                name,
                f"A parameter of shape {tuple(parameter.shape)} in the optimizer has no name here and is not "
                "projected; call track() with the current named parameters.",
            )
        return self.names[parameter]
