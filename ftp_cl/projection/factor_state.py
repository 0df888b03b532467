"""What FTP keeps of one adapter between two steps: a number a row and a few more, nothing of a weight's size."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftp_cl.projection.checks import problem_of
from ftp_cl.projection.radius import NUMBERS, SMALLEST_RADIUS, VALUE, named
from ftp_cl.projection.rows import NORM_EPSILON, kept_dtype
from ftp_cl.projection.tensor_state import check_numbers


class FactorState:
    """The radius of an adapter's ball and the lengths of its rows; its anchor is no change, 0.

    Args:
        shape: of the factor that is written, in all processes together.
        rows: how many rows of the change this process has.
        device: where the factor is.

    Attributes:
        norms: n_r of the previous step's change before projection, shape [rows].
        numbers: gamma, its Adam state and counts, as `radius.NUMBERS` lists them. Before the first step, gamma is the
            least that it begins with: an adapter that has been trained begins with its longest row.
        plan: None: no backend works out addresses of it.
    """

    plan = None

    def __init__(self, shape: torch.Size, rows: int, device: torch.device) -> None:
        self.shape = torch.Size(shape)
        self.norms = torch.full((rows,), NORM_EPSILON, dtype=kept_dtype(device), device=device)
        self.numbers = torch.zeros(len(NUMBERS), dtype=kept_dtype(device), device=device)
        self.numbers[VALUE] = SMALLEST_RADIUS
        self._factor: weakref.ref[nn.Parameter] | None = None

    def fits(self, factor: Tensor) -> bool:
        """Whether it is the factor of the shape, and thereby of the rank, that this is the state of."""
        return factor.shape == self.shape

    def belongs_to(self, factor: nn.Parameter) -> bool:
        """Whether it is the state of this very factor; a loaded state becomes that of the first that asks and fits.

        An adapter that is deleted and added again under its old name is another one.
        """
        if self._factor is None and self.fits(factor):
            self._factor = weakref.ref(factor)
        return self._factor is not None and self._factor() is factor

    def follows(self, factor: Tensor) -> bool:
        """Whether the state is where the factor is."""
        return self.norms.device == factor.device

    def follow(self, factor: Tensor) -> None:
        """Move the state to the device of the factor."""
        device = factor.device
        self.norms, self.numbers = (each.to(device, kept_dtype(device)) for each in (self.norms, self.numbers))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers; loads with `torch.load(weights_only=True)`."""
        return {"shape": torch.tensor(self.shape, device="cpu"), "norms": self.norms, **named(self.numbers.tolist())}

    @classmethod
    def is_saved(cls, state: Any) -> bool:
        """Whether it is one of these, and not that of a tensor with an anchor."""
        return isinstance(state, Mapping) and "shape" in state

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "FactorState":
        """The inverse of `state_dict`; tensors are copied.

        Raises:
            ValueError: if something is missing, unknown, of another kind, or a number that no state has.
        """
        if wrong := {"shape", "norms", *NUMBERS} ^ state.keys():
            raise ValueError(f"its {min(map(str, wrong))!r} is missing or unknown")
        shape, norms = state["shape"], state["norms"]
        if not isinstance(shape, Tensor) or shape.dtype != torch.int64 or shape.dim() != 1 or (shape < 1).any():
            raise ValueError("its shape is no list of sizes")
        if problem := problem_of(norms):
            raise ValueError(f"its norms {problem}")
        if norms.dim() != 1:
            raise ValueError(f"its norms have shape {tuple(norms.shape)} instead of one number a row")
        check_numbers(state)
        new = cls(torch.Size(shape.tolist()), len(norms), norms.device)
        new.norms.copy_(norms.detach())
        new.numbers = new.numbers.new_tensor([float(state[name]) for name in NUMBERS])
        return new
