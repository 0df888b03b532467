"""What FTP keeps of one weight tensor, and its two operations in plain torch: vote and project."""

from typing import Any

import torch
from torch import Tensor

from ftp_cl.projection.radius import Radius
from ftp_cl.projection.rows import accumulation_dtype, empty_like_rows, per_row, row_dots, row_norms


class TensorState:
    """Anchor, previous change and radius of one tensor: two tensors of its size, and a few numbers.

    It covers the rows that the tensor had when it was anchored. A tensor that has grown along dimension 0 since is
    projected in those rows only; new rows are free.

    Args:
        anchor: W0, the centre of the ball; copied.
        like: the weights; gives device, dtype and memory layout of the state.

    Attributes:
        anchor: W0, of shape [anchored rows, ...].
        change: c', the previous step's weights minus anchor before projection, of the same shape; uninitialised before
            the first step.
        radius: gamma and its Adam state.
        skipped: number of steps left out because a gradient or a weight was not finite.
    """

    def __init__(self, anchor: Tensor, like: Tensor) -> None:
        self.anchor = empty_like_rows(like[: anchor.shape[0]] if anchor.dim() else like).copy_(anchor)
        self.change = torch.empty_like(self.anchor)
        self.radius = Radius()
        self.skipped = 0
        self._change_norms: Tensor | None = None

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
        if self.anchor.device != weights.device or self.anchor.dtype != weights.dtype:
            self.anchor = self.anchor.to(device=weights.device, dtype=weights.dtype)
            self.change = self.change.to(device=weights.device, dtype=weights.dtype)
            self._change_norms = None

    def vote(self, gradient: Tensor) -> Tensor:
        """D = sum over rows of <g_r, c'_r> / n_r(c'), a 0-d tensor; not finite if the gradient is not.

        Before the first step there is no c'; then the value tells only whether the gradient is finite.

        Args:
            gradient: g, of the weights' shape, as the base optimizer is about to use it.
        """
        gradient = self.covered(gradient)
        if self.radius.steps == 0:
            return gradient.sum(dtype=accumulation_dtype(gradient.dtype))
        if self._change_norms is None:
            self._change_norms = row_norms(self.change)
        return (row_dots(gradient, self.change) / self._change_norms).sum()

    def project(self, weights: Tensor) -> Tensor:
        """W_r = W0_r + min(1, gamma / n_r(c)) c_r with c = W~ - W0, in place.

        Args:
            weights: W~, the tensor after the base optimizer's step; overwritten.

        Returns:
            The largest row norm of c, a 0-d tensor, for `Radius.clip`.
        """
        weights = self.covered(weights)
        torch.sub(weights, self.anchor, out=self.change)
        self._change_norms = row_norms(self.change)
        ratio = per_row((self.radius.value / self._change_norms).clamp_(max=1.0), weights)
        torch.addcmul(self.anchor, self.change, ratio, out=weights)
        return self._change_norms.max()

    def sum_of(self, weights: Tensor) -> Tensor:
        """The sum of the anchored rows, a 0-d tensor: if it is finite, so is every weight. The cheapest such test."""
        return self.covered(weights).sum(dtype=accumulation_dtype(weights.dtype))

    @torch.no_grad()
    def distance(self, weights: Tensor) -> Tensor:
        """n_r(W - W0), the row-wise L1 distance from the anchor, shape [anchored rows]."""
        return row_norms(torch.empty_like(self.anchor).copy_(self.covered(weights)).sub_(self.anchor))

    def clipped_share(self) -> float:
        """Share of rows that the last step pulled back onto the boundary of their ball; 0 before the first step."""
        if self.radius.steps == 0:
            return 0.0
        norms = self._change_norms if self._change_norms is not None else row_norms(self.change)
        return (norms >= self.radius.value).float().mean().item()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers; loads with `torch.load(weights_only=True)`."""
        state: dict[str, Any] = {"anchor": self.anchor, "skipped": self.skipped, **self.radius.state_dict()}
        if self.radius.steps > 0:
            state["change"] = self.change
        return state

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "TensorState":
        """The inverse of `state_dict`; tensors are copied, on the device they are on."""
        new = cls(state["anchor"], like=state["anchor"])
        new.skipped = int(state["skipped"])
        new.radius = Radius(
            float(state["value"]), float(state["first_moment"]), float(state["second_moment"]), int(state["steps"])
        )
        if new.radius.steps > 0:
            new.change.copy_(state["change"])
        return new
