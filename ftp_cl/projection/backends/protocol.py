"""What an implementation of FTP's step does, and what it is given."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ftp_cl.projection.radius import SMALLEST_RADIUS


@dataclass(frozen=True, slots=True)
class Rule:
    """How radii are learned in a step.

    Attributes:
        mu: step size of the radii.
        method: "paper"; "exact", in which only rows vote that the previous step has shortened; or "one_pass", in which
            the direction of the previous change is read off the weights before the step, W - W0, and the vote counts in
            the next step.
    """

    mu: float = 1e-2
    method: str = "paper"

    @property
    def one_pass(self) -> bool:
        """Whether votes are of the weights as they are, and count in the next step."""
        return self.method == "one_pass"

    @property
    def first_radius(self) -> float:
        """Gamma at a tensor's first step: a change below a weight's last bit would have no direction in one pass."""
        return self.mu if self.one_pass else SMALLEST_RADIUS


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a tensor is spread over processes along dimension 0.

    Attributes:
        group: the processes that have the parts.
        spread: whether it is a single row, of which each has some elements.
    """

    group: Any
    spread: bool


class Factored(Protocol):
    """An adapter's change of a weight, dW = scale * (L_1 R_1) * (L_2 R_2) ..., elementwise: never made as a whole.

    The rows of the factor that is written scale its rows: the projection of dW around 0 writes that factor alone.
    """

    @property
    def scale(self) -> float:
        """The factor before the products."""

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """L_i of shape [groups, rows, rank] and R_i of shape [groups, rank, columns], as they are now."""


@dataclass(slots=True, eq=False)
class Update:
    """One tensor in one optimizer step.

    Attributes:
        name: canonical name of the parameter.
        weights: the parameter, or what this process has of it.
        gradient: that of this step; some optimizers overwrite it once the vote is taken.
        state: its `TensorState`: anchor, previous change and radius; with `factored`, its `FactorState`.
        group: the optimizer's parameter group.
        k: factor on votes that shrink the radius.
        sharding: None: this process has all of the tensor.
        factored: the change that this tensor is a factor of, if it is an adapter's; weights and gradient are then of
            shape [rows, elements of the factor per row]. None: the tensor itself is projected.
    """

    name: str
    weights: Tensor
    gradient: Tensor
    state: Any
    group: Mapping[str, Any]
    k: float = 1.0
    sharding: Sharding | None = None
    factored: Factored | None = None

    @property
    def sign(self) -> float:
        """Of its votes: -1 for an optimizer that climbs."""
        return -1.0 if self.group.get("maximize") else 1.0


@dataclass(frozen=True, slots=True)
class Scaler:
    """What a GradScaler tells a fused optimizer, which unscales within its step; 0-d, where the weights are.

    Attributes:
        scale: factor on the gradients; None: 1.
        found_inf: above 0: the optimizer leaves this step out, and so does the projection. None: it does not.
    """

    scale: Tensor | None = None
    found_inf: Tensor | None = None

    def to(self, device: torch.device) -> "Scaler":
        """The same on another device."""
        tensors = (None if tensor is None else tensor.to(device) for tensor in (self.scale, self.found_inf))
        return Scaler(*tensors)


class Backend(Protocol):
    """Each method takes tensors that are alike in `layout`, all those of a step at once.

    A vote that is not finite is 0, and a row whose norm is not finite is left as the optimizer made it, with no change
    to vote with in the next step; the tensor's step is counted as skipped for either.
    """

    name: str

    def layout(self, update: Update) -> Hashable:
        """What tensors of one call have in common; None: this backend does not take that tensor."""

    def vote(self, updates: Sequence[Update], rule: Rule) -> Any:
        """Read gradients before the optimizer's step: D = sum over rows of <g_r, c'_r> / n_r(c'), for `project`."""

    def project(self, updates: Sequence[Update], votes: Any, rule: Rule, scaler: Scaler) -> Tensor:
        """Learn the radii and project, after the optimizer's step: W_r = W0_r + min(1, gamma / n_r(c)) c_r.

        In place; c = W~ - W0 and its norms go into the states.

        Returns:
            Which tensors had something that was not finite, shape [updates]; may still be computing on its device.
        """


@dataclass(slots=True)
class Part:
    """Tensors of a step that one backend works on together.

    Attributes:
        backend: what computes.
        updates: the tensors.
        votes: what `Backend.vote` has returned.
    """

    backend: Backend
    updates: list[Update]
    votes: Any = None

    def vote(self, rule: Rule) -> None:
        """Before the optimizer's step."""
        self.votes = self.backend.vote(self.updates, rule)

    def project(self, rule: Rule, scaler: Scaler) -> Tensor:
        """After it; see `Backend.project`."""
        return self.backend.project(self.updates, self.votes, rule, scaler.to(self.updates[0].weights.device))


def parts_of(updates: Sequence[Update], backends: Sequence[Backend]) -> list[Part]:
    """Each tensor with the first of the backends that takes it."""
    parts: dict[Hashable, Part] = {}
    for update in updates:
        for backend in backends:
            layout = backend.layout(update)
            if layout is not None:
                parts.setdefault((backend.name, layout), Part(backend, [])).updates.append(update)
                break
    return list(parts.values())
