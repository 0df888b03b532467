"""Whether a plugin serves the model that it served before."""

import weakref

from torch import nn


class LastModel:
    """Remembers the model that a plugin works on. A copy remembers none, as it may be meant for another strategy."""

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None

    def changes_to(self, model: nn.Module) -> bool:
        """Whether another model was served before; this one is remembered."""
        is_other = self.is_other_than(model)
        self.remember(model)
        return is_other

    def is_other_than(self, model: nn.Module) -> bool:
        """Whether another model, without any of these parameters, was served before."""
        if self._model is None:
            return False
        served = self._model()
        return served is None or set(served.parameters()).isdisjoint(model.parameters())

    def remember(self, model: nn.Module) -> None:
        """Serve it from now on."""
        self._model = weakref.ref(model)

    def __getstate__(self) -> dict[str, None]:
        """References to living objects do not travel."""
        return {"_model": None}
