"""FTP's part of one optimizer step: which tensors it is about, votes before it and projections after it."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from ftp_cl.optim.adapter_kinds import Adapter
from ftp_cl.optim.checks import check_k, check_kind
from ftp_cl.optim.fused_adam import FusedStep, can_fuse
from ftp_cl.optim.sharding import local
from ftp_cl.optim.skips import SkipWatch
from ftp_cl.optim.states import States
from ftp_cl.optim.step_hooks import same
from ftp_cl.optim.tracked import Tracked
from ftp_cl.projection import Backend, Part, Rule, Scaler, Update, parts_of
from ftp_cl.projection.backends.plan import kinds_of
from ftp_cl.projection.rows import is_captured

_gradient_of = operator.attrgetter("grad")


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """The tensors of the step before, if each of them is to be found so again.

    Attributes:
        updates: what was projected.
        places: where that is among the parameters of the groups.
        objects: what must be the very same: groups, their parameters, and what `Tracked` has found out.
        settings: what must be equal: sizes of groups, their k, and which parameters have no gradient.
        kinds: of the weights and gradients that were projected, as `kinds_of` gives them.
    """

    updates: list[Update]
    places: list[int]
    objects: list[Any]
    settings: list[Any]
    kinds: list[Any]


class Step:
    """The step in progress.

    Attributes:
        updates: what is projected in it, tensor by tensor; empty between steps.
    """

    def __init__(self, tracked: Tracked, states: States, backends: Sequence[Backend]) -> None:
        self._tracked, self._states, self._backends = tracked, states, backends
        self._skips = SkipWatch()
        self.updates: list[Update] = []
        self._parts: list[Part] = []
        self._fused: FusedStep | None = None
        # Those of the step before serve while its tensors are the same.
        self._before: _Before | None = None
        self._fused_before: FusedStep | None = None
        self._waiting: list[Update] = []
        self._parts_before: list[Part] = []
        self._captured: list[Any] = []

    def begin(self, optimizer: Optimizer, rule: Rule, k: float, alone: bool) -> None:
        """Collect votes. `alone`: nobody else's hook comes in between, so that AdamW's update may be taken along."""
        waiting = self.updates = self._updates_of(optimizer, k)
        if waiting and is_captured(waiting[0].weights.device):  # the graph's kernels write to these tensors ever after
            self._captured += [vars(update.state).copy() for update in waiting]
        if alone and can_fuse(optimizer):
            if self._fused_before is None or not self._fused_before.fits(optimizer, waiting):
                backends = [backend for backend in self._backends if hasattr(backend, "adam")]
                self._fused_before = FusedStep(optimizer, waiting, backends)
            self._fused = self._fused_before
            waiting = self._fused.left
            try:
                self._fused.run(rule)
            except BaseException:
                self._fused.give_back()
                raise
        if waiting is not self._waiting:
            self._waiting, self._parts_before = waiting, parts_of(waiting, self._backends)
        self._parts = self._parts_before
        for part in self._parts:
            part.vote(rule)

    def end(self, optimizer: Optimizer, rule: Rule) -> list[str]:
        """Project; returns the names of tensors that are known by now to have had a skipped step."""
        done = [] if self._fused is None else list(self._fused.parts)
        parts = self._parts
        self.forget()
        scaler = Scaler(getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None))
        done += [(part.updates, part.project(rule, scaler)) for part in parts]
        return self._skips.names(done)

    def clear(self) -> None:
        """Forget the step before, too, and the tensors of its optimizer with it."""
        self.forget()
        self._before = self._fused_before = None
        self._waiting, self._parts_before = [], []

    def forget(self) -> None:
        """End without a projection; gradients that were taken along are given back."""
        if self._fused is not None:
            self._fused.give_back()
        for update in self.updates:
            update.gradient = update.weights  # what is remembered of a step is not to keep its gradients alive
        self.updates, self._parts, self._fused = [], [], None

    def _updates_of(self, optimizer: Optimizer, k: float) -> list[Update]:
        """The same list as in the step before while its tensors are the same, which is asked of all at once."""
        before, tracked, states = self._before, self._tracked, self._states
        groups = [group for group in optimizer.param_groups if group.get("ftp", True)]
        parameters = [parameter for group in groups for parameter in group["params"]]
        gradients = list(map(_gradient_of, parameters))
        settings: list[Any] = [(len(group["params"]), group.get("ftp_k", k)) for group in groups]
        settings += [gradient is None for gradient in gradients]
        if (
            before is not None
            and before.settings == settings
            and same(before.objects, [tracked.found, *groups, *parameters])
            and all([states.get(update.name) is update.state for update in before.updates])
        ):
            own = [gradients[place] for place in before.places]
            if before.kinds == [kinds_of([update.weights for update in before.updates]), kinds_of(own)]:
                for update, gradient in zip(before.updates, own, strict=True):
                    update.gradient = gradient
                return before.updates
        updates = list(self.updates_of(optimizer, k))
        taken, place_of = {id(update.weights) for update in updates}, {id(p): i for i, p in enumerate(parameters)}
        left = [p for p, g in zip(parameters, gradients, strict=True) if g is not None and id(p) not in taken]
        self._before = None
        if all(tracked.names[parameter] in tracked.excluded for parameter in left):
            kinds = [kinds_of([update.weights for update in updates]), kinds_of([u.gradient for u in updates])]
            places = [place_of[id(update.weights)] for update in updates]
            self._before = _Before(updates, places, [tracked.found, *groups, *parameters], settings, kinds)
        return updates

    def updates_of(self, optimizer: Optimizer, k: float) -> Iterator[Update]:
        """One for each parameter that is projected in this step, or adapter; their states are made."""
        tracked, states = self._tracked, self._states
        begun: set[Adapter] = set()
        for group in optimizer.param_groups:
            if not group.get("ftp", True):
                continue
            check_k(group_k := group.get("ftp_k", k))
            group_k = float(group_k)
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                weights, gradient = local(parameter), local(gradient)
                update = tracked.found.get(id(parameter))
                if (
                    update is None
                    or not update.state.follows(weights)
                    or update.state is not states.get(update.name)
                    or gradient.layout is not torch.strided
                ):
                    name = tracked.name_of(parameter, states)
                    if (adapter := tracked.adapters.of(parameter)) is not None:
                        if adapter not in begun:
                            begun.add(adapter)
                            yield self._of_adapter(adapter, group, group_k)
                        continue
                    if name in tracked.excluded:
                        continue
                    check_kind(name, weights, gradient)
                    state = states.of(name, parameter)
                    if state is None:
                        continue
                    update = Update(name, weights, gradient, state, group, group_k, tracked.shardings.get(name))
                    tracked.found[id(parameter)] = update
                update.weights, update.gradient, update.group, update.k = weights, gradient, group, group_k
                yield update

    def _of_adapter(self, adapter: Adapter, group: dict[str, Any], k: float) -> Update:
        """Of an adapter that has a gradient."""
        adapter.check_step()
        for parameter in adapter.written:
            if parameter.grad is not None:
                check_kind(adapter.name, parameter, parameter.grad)
        sharding = self._tracked.shardings.get(adapter.name)
        rows, gradient = adapter.rows(local(adapter.factors()[0].detach())), adapter.gradient()
        state = self._states.of_adapter(adapter, rows, sharding)
        return Update(adapter.name, rows, gradient, state, group, k, sharding, adapter)
