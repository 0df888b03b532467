"""What FTP keeps of one weight tensor between two steps: anchor, previous change, radius."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection.checks import number, problem_of
from ftp_cl.projection.radius import Radius
from ftp_cl.projection.rows import NORM_EPSILON, empty_like_rows, kept_dtype, kept_norms, row_norms

_TENSORS = ("anchor", "change", "norms")
_RADIUS = tuple(field.name for field in fields(Radius))


@dataclass(frozen=True)
class Storage:
    """Where and how precisely the state is kept.

    Attributes:
        direction_dtype: of the previous change c', which only votes; None: that of the weights.
        anchor_device: of the anchor, which is fetched tensor by tensor at each step; None: that of the weights.
    """

    direction_dtype: torch.dtype | None = None
    anchor_device: torch.device | None = None


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
        change: c', the previous step's weights minus anchor before projection, of the same shape; 0 at first.
        norms: n_r(c'), shape [anchored rows].
        radius: gamma and its Adam state.
        skipped: number of steps left out because a gradient or a weight was not finite.
        plan: what a backend has worked out about these tensors; None again as soon as they are other ones.
    """

    def __init__(self, anchor: Tensor, like: Tensor, storage: Storage | None = None) -> None:
        self.storage = storage or Storage()
        self.anchor = empty_like_rows(like[: anchor.shape[0]] if anchor.dim() else like).copy_(anchor)
        self.change = torch.zeros_like(self.anchor)
        self.norms = kept_norms(self.change)
        self.radius = Radius()
        self.skipped = 0
        self.plan: Any = None
        self._followed: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self.follow(like)

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan, which knows the addresses of these very tensors: a copy must not write there."""
        return {**self.__dict__, "plan": None}

    def covered(self, tensor: Tensor) -> Tensor:
        """The part of a weight or gradient tensor that is anchored: its first rows, or all of it."""
        if tensor.shape == self.anchor.shape:
            return tensor
        return tensor.narrow(0, 0, self.anchor.shape[0])

    def fits(self, weights: Tensor) -> bool:
        """Whether `weights` is the anchored tensor, possibly grown along dimension 0."""
        if weights.shape == self.anchor.shape:
            return True
        return (
            weights.dim() == self.anchor.dim() > 0
            and weights.shape[1:] == self.anchor.shape[1:]
            and weights.shape[0] > self.anchor.shape[0]
        )

    def follow(self, weights: Tensor) -> None:
        """Move the state to the device and dtype of the weights, if the user has moved those."""
        device, dtype = weights.device, weights.dtype
        anchor_device = self.storage.anchor_device or device
        direction_dtype = self.storage.direction_dtype or dtype
        if self.anchor.dtype != dtype or self.anchor.device != anchor_device:
            self.anchor = self.anchor.to(device=anchor_device, dtype=dtype)
            self.plan = None
        if self.change.dtype != direction_dtype or self.change.device != device:
            self.change = self.change.to(device=device, dtype=direction_dtype)
            self.plan = None
            self.norms = kept_norms(self.change)
        self._followed = weights.shape, dtype, device

    def follows(self, weights: Tensor) -> bool:
        """Whether weights of this shape, dtype and device have been followed last."""
        return (weights.shape, weights.dtype, weights.device) == self._followed

    def confirmed(self, weights: Tensor, largest_row: float) -> float:
        """Check a projection by the largest row norm that it found, and take it back if a weight was not finite.

        The step's change must not stay in the state, and the one before it is overwritten: there is none to vote
        with in the next step.

        Returns:
            The largest row norm; NaN if the projection was taken back.
        """
        if math.isfinite(largest_row) or bool(torch.isfinite(self.change).all()):
            return largest_row  # a sum of finite numbers may overflow
        self.covered(weights).copy_(self.anchor.to(weights.device) + self.change)
        self.change.zero_()
        self.norms.fill_(NORM_EPSILON)
        return math.nan

    @torch.no_grad()
    def distance(self, weights: Tensor) -> Tensor:
        """n_r(W - W0), the row-wise L1 distance from the anchor, shape [anchored rows]."""
        here = torch.empty_like(self.anchor, device=weights.device).copy_(self.covered(weights))
        return row_norms(here.sub_(self.anchor.to(weights.device)))

    def clipped_share(self) -> float:
        """Share of rows that the last step pulled back onto the boundary of their ball; 0 before the first step."""
        return (self.norms > self.radius.value).float().mean().item() if self.radius.steps else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers; loads with `torch.load(weights_only=True)`."""
        return {
            "anchor": self.anchor,
            "change": self.change,
            "norms": self.norms,
            "skipped": self.skipped,
            **self.radius.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], storage: Storage | None = None) -> "TensorState":
        """The inverse of `state_dict`; tensors are copied, on the device they are on, and in the layout of the anchor.

        Raises:
            ValueError: if something is missing, unknown, of another kind or shape, not finite, or negative.
        """
        _check_saved(state)
        new = cls(state["anchor"].detach(), like=state["anchor"], storage=storage)
        change, norms = state["change"].detach(), state["norms"].detach()
        new.change = torch.empty_like(new.anchor, dtype=change.dtype, device=change.device).copy_(change)
        new.norms = torch.empty(norms.shape, dtype=kept_dtype(change.device), device=change.device).copy_(norms)
        new._followed = None  # they may be of another dtype or device than `storage` asks for
        value, first, second, steps = (float(state[name]) for name in _RADIUS)
        new.radius = Radius(value, first, second, int(steps))
        new.skipped = int(state["skipped"])
        return new


def _check_saved(state: Any) -> None:
    """Raise a ValueError for what is no `TensorState.state_dict`: backends trust shapes and dtypes of a state."""
    expected = {*_TENSORS, *_RADIUS, "skipped"}
    if not isinstance(state, Mapping):
        raise ValueError(f"it is no mapping but a {type(state).__name__}")
    if wrong := expected ^ state.keys():
        key = min(map(str, wrong))
        raise ValueError(f"its {key!r} is missing" if key in expected else f"it has an unknown {key!r}")
    for name in _TENSORS:
        if problem := problem_of(state[name]):
            raise ValueError(f"its {name} {problem}")
    anchor = state["anchor"]
    if not anchor.numel():
        raise ValueError("its anchor is empty")
    for name, shape in (("change", anchor.shape), ("norms", anchor.shape[:1] if anchor.dim() > 1 else (1,))):
        if state[name].shape != shape:
            raise ValueError(f"its {name} has shape {tuple(state[name].shape)} instead of {tuple(shape)}")
    for name in ("anchor", "change"):
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"its {name} is not finite")
    if not (state["norms"] > 0).all():  # infinite ones are those of rows whose sum has overflowed
        raise ValueError("its norms are not all above 0")
    numbers = {name: number(state[name]) for name in (*_RADIUS, "skipped")}
    for name, value in numbers.items():
        if not math.isfinite(value) or (value < 0 and name != "first_moment"):
            raise ValueError(f"its {name!r} is {state[name]!r}, no number that it can be")
        if name in ("steps", "skipped") and value != int(value):
            raise ValueError(f"its {name!r} is {state[name]!r}, no whole number")
    if numbers["value"] == 0:
        raise ValueError("its 'value', the radius, is 0, below the smallest")
