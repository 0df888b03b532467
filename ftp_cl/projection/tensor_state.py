"""What FTP keeps of one weight tensor between two steps: anchor, previous change, radius."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection.checks import number, problem_of
from ftp_cl.projection.radius import NUMBERS, SMALLEST_RADIUS, VALUE, named
from ftp_cl.projection.rows import NORM_EPSILON, empty_like_rows, kept_dtype, row_norms


@dataclass(frozen=True)
class Storage:
    """Where and how precisely the state is kept.

    Attributes:
        direction_dtype: of the previous change c', which only votes; None: that of the weights.
        anchor_dtype: of the anchor; None: that of the weights.
        anchor_device: of the anchor, which is fetched tensor by tensor at each step; None: that of the weights.
        keeps_change: whether there is a previous change; in one pass, the weights themselves give the direction.
    """

    direction_dtype: torch.dtype | None = None
    anchor_dtype: torch.dtype | None = None
    anchor_device: torch.device | None = None
    keeps_change: bool = True


def is_anchor_of(anchor: Tensor, weights: Tensor) -> bool:
    """Whether `weights` is, by its shape, the anchored tensor, possibly grown along dimension 0."""
    if weights.shape == anchor.shape:
        return True
    return (
        weights.dim() == anchor.dim() > 0
        and weights.shape[1:] == anchor.shape[1:]
        and weights.shape[0] > anchor.shape[0]
    )


class TensorState:
    """Anchor, previous change and radius of one tensor: two tensors of its size, one number a row, and a few more.

    It covers the rows that the tensor had when it was anchored. A tensor that has grown along dimension 0 since is
    projected in those rows only; new rows are free.

    Args:
        anchor: W0, the centre of the ball; copied.
        like: the weights; gives device, dtype and memory layout of the state.
        storage: where the state deviates from that.

    Attributes:
        anchor: W0, of shape [anchored rows, ...].
        change: c', the previous step's weights minus anchor before projection, of the same shape; 0 at first. None if
            `storage` keeps none.
        norms: n_r(c'), shape [anchored rows].
        numbers: gamma, its Adam state and counts, as `radius.NUMBERS` lists them, where the weights are.
        plan: what a backend has worked out about these tensors; None again as soon as they are other ones.
    """

    def __init__(self, anchor: Tensor, like: Tensor, storage: Storage | None = None) -> None:
        self.storage = storage or Storage()
        self.anchor = empty_like_rows(like[: anchor.shape[0]] if anchor.dim() else like).copy_(anchor)
        self.change = torch.zeros_like(self.anchor) if self.storage.keeps_change else None
        few = torch.empty(0, dtype=kept_dtype(like.device), device=like.device)
        self.norms = few.new_full((anchor.shape[0] if anchor.dim() > 1 else 1,), NORM_EPSILON)
        self.numbers = few.new_zeros(len(NUMBERS))
        self.numbers[VALUE] = SMALLEST_RADIUS
        self.plan: Any = None
        self._followed: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self.follow(like)

    def __getstate__(self) -> dict[str, Any]:
        """Without what knows the addresses of these very tensors: a copy must not write there."""
        return {**self.__dict__, "plan": None}

    def covered(self, tensor: Tensor) -> Tensor:
        """The part of a weight or gradient tensor that is anchored: its first rows, or all of it."""
        if tensor.shape == self.anchor.shape:
            return tensor
        return tensor.narrow(0, 0, self.anchor.shape[0])

    def fits(self, weights: Tensor) -> bool:
        """See `is_anchor_of`."""
        return is_anchor_of(self.anchor, weights)

    def follow(self, weights: Tensor) -> None:
        """Move the state to the device and dtype of the weights, if the user has moved those."""
        device, dtype = weights.device, weights.dtype
        self.plan = None
        self.anchor = self.anchor.to(self.storage.anchor_device or device, self.storage.anchor_dtype or dtype)
        if self.change is not None:
            self.change = self.change.to(device, self.storage.direction_dtype or dtype)
        self.norms = self.norms.to(device, kept_dtype(device))
        self.numbers = self.numbers.to(device, kept_dtype(device))
        self._followed = weights.shape, dtype, device

    @property
    def shape(self) -> torch.Size:
        """Of the anchor."""
        return self.anchor.shape

    @property
    def followed_dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.anchor.dtype if self._followed is None else self._followed[1]

    def follows(self, weights: Tensor) -> bool:
        """Whether weights of this shape, dtype and device have been followed last."""
        shape, dtype, device = self._followed or (None, None, None)
        return weights.shape == shape and weights.dtype is dtype and weights.device == device  # quicker than as tuples

    @torch.no_grad()
    def distance(self, weights: Tensor) -> Tensor:
        """n_r(W - W0), the row-wise L1 distance from the anchor, shape [anchored rows]."""
        here = torch.empty_like(self.anchor, device=weights.device, dtype=weights.dtype).copy_(self.covered(weights))
        return row_norms(here.sub_(self.anchor.to(weights.device)))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers; loads with `torch.load(weights_only=True)`."""
        change = {} if self.change is None else {"change": self.change}
        return {"anchor": self.anchor, **change, "norms": self.norms, **named(self.numbers.tolist())}

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], storage: Storage | None = None, *, part: bool = False
    ) -> "TensorState":
        """The inverse of `state_dict`; tensors are copied, on the device they are on, and in the layout of the anchor.

        A state without a change, learned in one pass, has none to vote with in the next step. `part`: it is what a
        process has of a tensor that is spread over several, which may be nothing.

        Raises:
            ValueError: if something is missing, unknown, of another kind or shape, not finite, or negative.
        """
        _check_saved(state, part)
        new = cls(state["anchor"].detach(), like=state["anchor"], storage=storage)
        if new.change is not None and "change" in state:
            change = state["change"].detach()
            new.change = torch.empty_like(new.anchor, dtype=change.dtype, device=change.device).copy_(change)
        new.norms.copy_(state["norms"])
        new.numbers = new.numbers.new_tensor([float(state[name]) for name in NUMBERS])
        new._followed = None  # they may be of another dtype or device than `storage` asks for
        return new


def _check_saved(state: Any, part: bool) -> None:
    """Raise a ValueError for what is no `TensorState.state_dict`: backends trust shapes and dtypes of a state."""
    expected = {"anchor", "norms", *NUMBERS}
    if not isinstance(state, Mapping):
        raise ValueError(f"it is no mapping but a {type(state).__name__}")
    if wrong := expected ^ (state.keys() - {"change"}):
        key = min(map(str, wrong))
        raise ValueError(f"its {key!r} is missing" if key in expected else f"it has an unknown {key!r}")
    for name in ("anchor", "norms", "change"):
        if problem := problem_of(state.get(name, state["anchor"])):
            raise ValueError(f"its {name} {problem}")
    anchor = state["anchor"]
    if not anchor.numel() and not part:
        raise ValueError("its anchor is empty")
    change = state.get("change", anchor)
    for name, tensor, shape in (
        ("change", change, anchor.shape),
        ("norms", state["norms"], anchor.shape[:1] if anchor.dim() > 1 else (1,)),
    ):
        if tensor.shape != shape:
            raise ValueError(f"its {name} has shape {tuple(tensor.shape)} instead of {tuple(shape)}")
    for name, tensor in (("anchor", anchor), ("change", change)):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"its {name} is not finite")
    check_numbers(state)


def check_numbers(state: Mapping[str, Any]) -> None:
    """Raise a ValueError for norms or numbers that no state has."""
    if not (state["norms"] > 0).all():  # infinite ones are those of rows whose sum has overflowed
        raise ValueError("its norms are not all above 0")
    numbers = {name: number(state[name]) for name in NUMBERS}
    for name, value in numbers.items():
        if not math.isfinite(value) or (value < 0 and name != "first_moment"):
            raise ValueError(f"its {name!r} is {state[name]!r}, no number that it can be")
        if name in ("steps", "skipped") and value != int(value):
            raise ValueError(f"its {name!r} is {state[name]!r}, no whole number")
    if numbers["value"] == 0:
        raise ValueError("its 'value', the radius, is 0, below the smallest")
