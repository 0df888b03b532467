"""FTP on any torch optimizer, through torch's own step hooks."""

import logging
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ftp_cl.optim.adapter_kinds import Adapter
from ftp_cl.optim.adapters import Adapters, check, check_given_anchor, has_factors
from ftp_cl.optim.checkpoints import riding, taken_off
from ftp_cl.optim.checks import (
    METHODS,
    check_anchor,
    check_k,
    check_kind,
    check_precision,
    check_rounding,
    followers,
    stepping,
    storage,
)
from ftp_cl.optim.fused_adam import FusedStep, can_fuse
from ftp_cl.optim.names import Exclude, NamedParameters, aliases, canonical_name, exclude_entries, match, named_list
from ftp_cl.optim.next_adapter import keep_changes
from ftp_cl.optim.sharding import local, local_like, sharding_of, spread_like, whole
from ftp_cl.optim.skips import SkipWatch
from ftp_cl.optim.step_hooks import is_called_by, is_outermost
from ftp_cl.projection import (
    FactorState,
    Part,
    Rule,
    Scaler,
    Sharding,
    TensorState,
    Update,
    available_backends,
    get_backends,
    parts_of,
)
from ftp_cl.projection.checks import number, problem_of
from ftp_cl.projection.radius import SKIPPED, STEPS, VALUE
from ftp_cl.projection.rows import row_norms

logger = logging.getLogger(__name__)

STATE_KEY = "ftp"
"""The key beside "state" and "param_groups" under which FTP's state rides in `optimizer.state_dict()`."""

_GROUP_KEYS = ("ftp", "ftp_k")
"""What a parameter group may say to FTP."""


class FTP:
    """Keeps each weight tensor in a ball around its anchor while any optimizer trains it; learns each ball's radius.

    Fast Trainable Projection, arXiv 2310.19182. After every `optimizer.step()`, with W~ the new weights, W0 the
    anchor, g the gradient of that step: rows r of W~ - W0 that are longer (L1) than the tensor's radius gamma are
    shortened to it. Before that, gamma takes an Adam step along the vote sum_r <g_r, c'_r> / n_r(c'), with c' the
    previous step's change. No extra forward or backward pass is needed.

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ftp = FTP(model, exclude="head").attach(optimizer)

    Of peft's adapters in a model (LoRA, LoHa, VeRA) the change that each makes of a weight is kept in a ball around 0,
    through one of its factors, without an anchor or a previous change (docs/lora.md).

    The optimizer stays what it is: schedulers, GradScaler, Accelerate and Lightning work as before. FTP's state rides
    in `optimizer.state_dict()` under the key "ftp": two tensors of each projected tensor's size (anchor and previous
    change) and a few numbers. torch does not copy hooks with an optimizer: after deepcopy or unpickling, call `attach`
    again.

    Args:
        parameters: the model, or its named parameters. With the model, parameters that it gains later are found by
            themselves, and `exclude` takes module types; otherwise call `track`.
        k: factor in [0, 1] on votes that shrink a radius ("gradient annealing", section 4 of the paper). 1, the
            paper's default, leaves them; 0 lets radii only grow, which underfits less.
        anchor: weights to stay near, by name, as they are now: they are copied. None: each tensor's weights right
            before its first optimizer step.
        exclude: what is not projected: parameter names, module names, shell patterns, module types. A new classifier
            belongs here. A weight that is tied is excluded if any of its names is.
        method: "paper", the published rule, in which all rows vote on the radius; "exact", in which only rows that the
            previous step has shortened do: the derivative of the loss by the radius (docs/hyper_optimizer.md); or
            "one_pass", a variant in one pass over memory that keeps the anchor only: the direction of the previous
            change is read off the weights before the step, W - W0, which is the same but for rounding; the vote counts
            in the next step; the first radius is mu, because a change below a weight's last bit has no direction. It
            needs weights in float32 or float64.
        mu: step size of the radii, 1e-2 as published. A radius grows by at most about mu a step, in units of a row's
            L1 norm.
        backend: "torch", which is always there, "numba" (`pip install 'ftp-cl[fast]'`; for CPU), "triton" (for
            GPUs), or "auto": for each tensor Numba or Triton where they take it, else plain torch. All give the same
            results but for rounding, and read each other's state. Behind torch's fused Adam and AdamW, Numba and Triton
            take their update and the projection together (docs/speed.md). Triton's kernels have not run on a GPU yet:
            before they are used on one, they must pass a trial there against plain torch, in the first step.
        direction_dtype: of the previous change, which only votes on radii; `"bfloat16"` halves its memory. None: that
            of the weights, as published.
        anchor_dtype: of the anchors; `"bfloat16"` halves their memory, and is exact where the pretrained weights are
            bfloat16 numbers. None: that of the weights.
        round_anchor: whether an anchor may be rounded to `anchor_dtype`, which moves weights; otherwise a step raises
            ValueError where it would be.
        anchor_device: keeps anchors elsewhere, for example on "cpu" while the weights are on a GPU; they are fetched
            tensor by tensor at each step. None: where the weights are.

    A parameter group may carry `ftp_k`, its own k, or `ftp=False`, not to be projected.

    Under DistributedDataParallel every process projects alike, since all have the same weights and gradients. Weights
    that are sharded along dimension 0, as `fully_shard` (FSDP2, also on a mesh of replicas and shards, HSDP) leaves
    them, are projected where they are, with up to three small collectives a step among the shards; FTP's state is
    sharded like them and rides in what `get_optimizer_state_dict` of torch.distributed.checkpoint gives. Then
    `distances` and `summary` are to be called in all processes. FSDP's first version and other placements are refused.

    Attributes:
        updates: the step in progress, tensor by tensor; empty between steps.
        backend: the one that was asked for.

    Raises:
        ValueError: for a k outside [0, 1], a mu that is not positive, an unknown method, a backend that is unknown or
            not installed, an `exclude` or `anchor` that does not fit the parameters, an anchor that is not finite,
            a dtype or device that is not there, or sharded parameters.
        TypeError: for parameters without names, or an `exclude` or `anchor` of another kind.
    """

    def __init__(
        self,
        parameters: NamedParameters,
        *,
        k: float = 1.0,
        anchor: Mapping[str, Tensor] | None = None,
        exclude: Exclude = (),
        method: Literal["paper", "exact", "one_pass"] = "paper",
        mu: float = 1e-2,
        backend: str = "auto",
        direction_dtype: torch.dtype | str | None = None,
        anchor_dtype: torch.dtype | str | None = None,
        round_anchor: bool = False,
        anchor_device: torch.device | str | None = None,
    ) -> None:
        check_k(k)
        if not 0 < number(mu) < math.inf:
            raise ValueError(f"mu={mu!r} is no step size: it must be a number above 0 (1e-2 as published).")
        if method not in METHODS:
            raise ValueError(f"method={method!r} is unknown; choose 'paper', 'exact' or 'one_pass'.")
        self.k = k
        self.mu = mu
        self.method = method
        self.exclude = exclude_entries(exclude)
        self.backend = backend
        self._backends = get_backends(backend)
        self.round_anchor = round_anchor
        self._storage = storage(method, direction_dtype, anchor_dtype, anchor_device)
        self._anchor: dict[str, Tensor] = {}
        self._model = parameters if isinstance(parameters, nn.Module) else None
        self._names: dict[nn.Parameter, str] = {}
        self._excluded: set[str] = set()
        self._known: dict[int, Update] = {}
        self._shardings: dict[str, Sharding] = {}
        self._states: dict[str, Any] = {}  # TensorState, of an adapter FactorState
        self._adapters = Adapters(nn.Module(), {}, set())
        self.updates: list[Update] = []
        self._parts: list[Part] = []
        self._fused: FusedStep | None = None
        self._skips = SkipWatch()
        self._warned: set[str] = set()
        self._optimizer: weakref.ref[Optimizer] | None = None
        self._given: weakref.ref[Optimizer] | None = None
        self._was_attached = False
        self._step_hooks: tuple[int, int] | None = None
        self._handles: list[Any] = []
        self._loading: dict[str, TensorState | FactorState] | None = None
        self._at_rest: dict[str, Tensor] = {}
        self.track(parameters)
        self._anchor = self._checked_anchor(anchor)
        self._remember_weights()

    # ---- which parameters -------------------------------------------------------------------------------------------

    def track(
        self,
        parameters: NamedParameters | None = None,
        *,
        exclude: Exclude | None = None,
        anchor: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the parameters' names anew: after a head was added, grown or replaced. State stays with the names.

        Args:
            parameters: the model or its named parameters; None: the model given before.
            exclude: replaces the previous choice; None keeps it.
            anchor: anchors of new tensors, by name, beside those given before; tensors without one are anchored at
                their weights right before their first step.

        Raises:
            ValueError: if `exclude` or `anchor` does not fit these parameters, two of them have one name, or one is
                FSDP's or a distributed tensor.
        """
        parameters = self._model if parameters is None else parameters
        if parameters is None:
            raise ValueError("FTP was given named parameters, not a model: pass the current ones to track().")
        if isinstance(parameters, nn.Module):
            self._model = parameters
        else:
            parameters = named_list(parameters)
        self.exclude = self.exclude if exclude is None else exclude_entries(exclude)
        excluded_names = match(self.exclude, parameters)
        self._names, self._excluded, self._known, self._shardings = {}, set(), {}, {}
        known: set[str] = set()
        for parameter, names in aliases(parameters).items():
            if names[0] in known:  # they would share anchor and radius
                raise ValueError(
                    f"Two parameters are called {names[0]!r}: put their modules into one nn.Module, or give each a "
                    f"name of its own, such as 'encoder.{names[0]}'."
                )
            known.add(names[0])
            self._names[parameter] = names[0]
            if not excluded_names.isdisjoint(names):
                self._excluded.add(names[0])
        if isinstance(parameters, nn.Module):
            self._adapters = Adapters(parameters, self._names, self._excluded, self._states)
        for name, parameter in self._projected().items():
            if (sharding := sharding_of(name, parameter)) is not None:
                self._shardings[name] = sharding
            if parameter.requires_grad and self._adapters.of(parameter) is None:
                check_precision(name, parameter, self.method)
            if parameter.numel() == 0:
                self._excluded.add(name)
        if not isinstance(parameters, nn.Module) and has_factors(self._names.values()):
            self._warn(
                "adapters",
                "FTP was given an adapter's factors by name and keeps each of them near its start; given the model "
                "itself, it keeps the change that they make together in a ball.",
            )
        self._tell_of_full_copies()
        if anchor is not None:
            self._anchor.update(self._checked_anchor(anchor, complete=False))

    def _tell_of_full_copies(self) -> None:
        """Peft trains a copy of what its `modules_to_save` names, such as a fresh classifier."""
        trained = {name for name, parameter in self._projected().items() if parameter.requires_grad}
        if copies := [name for name in trained if ".modules_to_save." in name]:
            self._warn(
                "modules_to_save",
                f"FTP projects {min(copies)}{f' and {len(copies) - 1} more' * (len(copies) > 1)}, trained in full "
                "beside the adapters; if that is a new classifier, exclude='*modules_to_save*' leaves it free.",
            )

    def projected_names(self) -> list[str]:
        """Names of the parameters that are projected once they get a gradient, in the model's order."""
        return list(self._projected())

    @property
    def has_adapters(self) -> bool:
        """Whether some of the model's adapters are kept in balls."""
        return bool(self._adapters.by_name())

    def restart(self) -> None:
        """Forget anchors and radii: each tensor is anchored anew at its weights right before its next step.

        An anchor that was given by name stays where it is; only radii start again. Adapters stay near no change, and
        begin with the radius of their longest row; `next_task` anchors them anew, too.
        """
        self._states.clear()
        self._at_rest.clear()

    def next_task(self, *, merge: bool | None = None) -> list[str]:
        """Begin a new task around the weights as they are: `restart`, after adapters have kept what they have learned.

        See `next_adapter`, which takes `merge` and says what becomes of an adapter. Without adapters it is `restart`.
        """
        adapters = [adapter for adapter in self._adapters.by_name().values() if adapter.is_trained]
        frozen = keep_changes(self._model, adapters, merge) if self._model is not None and adapters else []
        if frozen:
            self.track()
        self.restart()
        return frozen

    def move_anchor(self, anchor: Mapping[str, Tensor] | None) -> None:
        """Restart around other weights; None: around those that each tensor has right before its next step.

        Raises:
            ValueError: if a projected tensor is missing in `anchor` or has another shape there.
        """
        self._anchor = self._checked_anchor(anchor)
        self.restart()

    def _checked_anchor(self, anchor: Mapping[str, Tensor] | None, *, complete: bool = True) -> dict[str, Tensor]:
        """`anchor` by canonical name; `complete`: it must have every tensor that will be projected."""
        if anchor is None:
            return {}
        adapters = self._adapters.by_name()
        values = check_anchor(anchor, {n: p for n, p in self._projected().items() if n not in adapters}, complete)
        check_given_anchor(values, self._adapters, self._names)
        return values

    def _projected(self) -> dict[str, nn.Parameter]:
        """Also those that are frozen now."""
        return {name: parameter for parameter, name in self._names.items() if name not in self._excluded}

    # ---- attaching --------------------------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer) -> "FTP":
        """Project after each step of `optimizer`, and let the state ride in its state dict.

        An optimizer attached before is detached, with a warning while it is in use. Attach before a checkpoint is
        loaded into the optimizer: torch drops what nobody takes. Of SAM and its relatives (`first_step`, `second_step`)
        the steps of the optimizer that they hold are followed. Returns self.

        Raises:
            TypeError: if it is not a torch optimizer, a wrapper without torch's hooks or around another optimizer, or
                one that evaluates other weights than it trains (schedule-free).
            ValueError: if another FTP is attached to it.
        """
        inner = stepping(optimizer)
        attached = followers(inner, FTP)
        if self in attached:  # possibly through a wrapper, which shares its optimizer's hooks
            self._optimizer, self._given = weakref.ref(inner), weakref.ref(optimizer)
            return self
        if attached:
            raise ValueError("Another FTP is attached to this optimizer; detach() that one first.")
        if inner.state and not (self._states or self._anchor or self._was_attached):
            logger.warning(
                "The optimizer has a state already: FTP anchors the weights as they are now. If that state is from a "
                "checkpoint, attach before loading it, so that anchors and radii come back, too."
            )
        if self._optimizer is not None and (before := self._optimizer()) is not None:
            logger.warning(
                "FTP follows one optimizer: steps of the %s that it was attached to before are not projected any more; "
                "detach() first if that is meant.",
                type(before).__name__,
            )
        self._was_attached = True
        self.detach()
        self._optimizer, self._given = weakref.ref(inner), weakref.ref(optimizer)
        # A compiled step calls these untraced.
        before_step = inner.register_step_pre_hook(torch.compiler.disable(self._before_step))
        after_step = inner.register_step_post_hook(torch.compiler.disable(self._after_step))
        self._step_hooks = before_step.id, after_step.id
        self._handles = [before_step, after_step]
        for keeper in dict.fromkeys((inner, optimizer)):
            self._handles += [
                keeper.register_state_dict_post_hook(self._add_state),
                keeper.register_load_state_dict_pre_hook(self._take_state),
                keeper.register_load_state_dict_post_hook(self._state_is_loaded),
            ]
        self._remember_weights()
        return self

    def detach(self) -> None:
        """Leave the optimizer as it was before `attach`. The state is kept and serves a later `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._forget_step()
        self._optimizer = self._given = None

    def is_attached_to(self, optimizer: Any) -> bool:
        """Whether steps of this very optimizer object are followed by a projection."""
        return optimizer is not None and any(
            followed is not None and followed() is optimizer for followed in (self._optimizer, self._given)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Hooks do not travel: torch drops them when an optimizer is copied or pickled, so a copy is unattached."""
        states = {name: state.state_dict() for name, state in self._states.items()}
        own: dict[str, Any] = {
            "_optimizer": None,
            "_given": None,
            "_loading": None,
            "_at_rest": {},
            "_handles": [],
            "updates": [],
            "_parts": [],
            "_fused": None,
            "_known": {},
            "_states": states,
            "_backends": (),
        }
        return {**self.__dict__, **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        lacking: dict[str, Any] = {
            "_given": None,
            "_loading": None,
            "_at_rest": {},
            "round_anchor": False,
            "_skips": SkipWatch(),
            "_adapters": Adapters(nn.Module(), {}, set()),
        }
        self.__dict__.update({**lacking, **state})  # an older one lacks these
        self._backends = get_backends(self.backend if self.backend in available_backends() else "auto")
        self._states = self._read(state["_states"])

    # ---- one step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]] | None:
        """Collect votes: gradients are read before the step, because some optimizers overwrite them in it."""
        if not is_outermost(optimizer):
            return None
        self._forget_step()
        if is_called_by("_init_optim_state"):  # torch makes the optimizer's state there: no step to be counted
            list(self._updates_of(optimizer))
            return None
        # args are those of the unbound step: (optimizer, closure) or (optimizer,).
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._begin(optimizer)
            return None
        # Gradients come from inside the step. Those of the first evaluation belong to the weights before the step.
        closure = self._beginning(closure, optimizer)
        return ((optimizer, closure), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": closure})

    def _beginning(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        begun = False

        def closure_then_begin() -> Any:
            nonlocal begun
            with torch.enable_grad():
                loss = closure()
            if not begun:
                begun = True
                with torch.no_grad():
                    self._begin(optimizer)
            return loss

        return closure_then_begin

    def _begin(self, optimizer: Optimizer) -> None:
        waiting = self.updates = list(self._updates_of(optimizer))
        rule = self._rule()
        if self._can_fuse(optimizer):
            backends = [backend for backend in self._backends if hasattr(backend, "adam")]
            self._fused = FusedStep(optimizer, waiting, backends)
            waiting = self._fused.left
            try:
                self._fused.run(rule)
            except BaseException:
                self._fused.give_back()
                raise
        self._parts = parts_of(waiting, self._backends)
        for part in self._parts:
            part.vote(rule)

    def _rule(self) -> Rule:
        return Rule(self.mu, self.method)

    def _can_fuse(self, optimizer: Optimizer) -> bool:
        """Whether this step may be taken and projected in one pass: nobody else's hook may come in between."""
        before, after = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        alone = (next(reversed(before)), next(iter(after))) == self._step_hooks
        return alone and can_fuse(optimizer)

    def _updates_of(self, optimizer: Optimizer) -> Iterator[Update]:
        """One for each parameter that is projected in this step, or adapter."""
        begun: set[Adapter] = set()
        for group in optimizer.param_groups:
            if not group.get("ftp", True):
                continue
            check_k(k := group.get("ftp_k", self.k))
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                weights = parameter
                if self._shardings:
                    weights, gradient = local(parameter), local(gradient)
                update = self._known.get(id(parameter))
                if (
                    update is None
                    or not update.state.follows(weights)
                    or update.state is not self._states.get(update.name)
                    or gradient.layout is not torch.strided
                ):
                    name = self._names.get(parameter) or self._find(parameter)
                    weights, gradient = local(parameter), local(gradient)  # what was just found may be spread
                    if (adapter := self._adapters.of(parameter)) is not None:
                        if adapter not in begun:
                            begun.add(adapter)
                            yield self._adapter_update(adapter, group, float(k))
                        continue
                    if name in self._excluded:
                        continue
                    check_kind(name, weights, gradient)
                    state = self._state_of(name, parameter)
                    if state is None:
                        continue
                    update = Update(name, weights, gradient, state, group, float(k), self._shardings.get(name))
                    self._known[id(parameter)] = update
                update.weights, update.gradient, update.group, update.k = weights, gradient, group, float(k)
                yield update

    def _adapter_update(self, adapter: Adapter, group: dict[str, Any], k: float) -> Update:
        """Of an adapter that has a gradient: its ball is around no change."""
        adapter.check_step()
        for parameter in adapter.written:
            if parameter.grad is not None:
                check_kind(adapter.name, parameter, parameter.grad)
        factor = adapter.factors()[0]
        state: Any = self._states.get(adapter.name)
        sharding = self._shardings.get(adapter.name)
        weights, gradient = adapter.rows(local(factor.detach())), adapter.gradient()
        known = isinstance(state, FactorState) and state.belongs_to(factor)
        if not known or factor.dtype == torch.float16:
            check(adapter)
        if not known:
            state = self._states[adapter.name] = FactorState(factor.shape, len(weights), weights.device)
            state.numbers[VALUE] = adapter.longest_row(sharding)
            state.belongs_to(factor)
        if not state.follows(weights):
            state.follow(weights)
        return Update(adapter.name, weights, gradient, state, group, k, sharding, adapter)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not is_outermost(optimizer):
            return
        done = [] if self._fused is None else self._fused.parts
        parts, rule = self._parts, self._rule()
        self._forget_step()
        scaler = Scaler(getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None))
        if scaler.found_inf is not None and scaler.found_inf.is_cpu and scaler.found_inf.numpy() > 0:
            return  # a fused optimizer under GradScaler has left this step out
        done += [(part.updates, part.project(rule, scaler)) for part in parts]
        self._warn_of_skips(self._skips.names(done))

    def _forget_step(self) -> None:
        if self._fused is not None:
            self._fused.give_back()
        for update in self.updates:
            update.gradient = update.weights  # what is remembered of a step is not to keep its gradients alive
        self.updates, self._parts, self._fused = [], [], None

    def _find(self, parameter: nn.Parameter) -> str:
        """The name of a parameter that the model has gained; one from elsewhere gets a name and is excluded."""
        if self._model is not None:
            self.track()
        if parameter not in self._names:
            # Remember it, so that a parameter from elsewhere costs one look and one warning.
            name = self._names[parameter] = f"<unnamed {len(self._names)}>"
            self._excluded.add(name)
            self._warn(
                name,
                f"A parameter of shape {tuple(parameter.shape)} in the optimizer has no name here and is not "
                "projected; call track() with the current named parameters.",
            )
        return self._names[parameter]

    def _state_of(self, name: str, parameter: nn.Parameter) -> TensorState | None:
        """The state that fits the parameter; None, with a warning, while there are no finite weights to stay near."""
        state: TensorState | None = self._states.get(name)
        weights = local(parameter)
        if state is not None and state.follows(weights):
            return state
        if state is not None and not state.fits(weights):
            self._warn(f"{name}:shape", f"{name} has another shape than its anchor; it is anchored anew.")
            state = None
            del self._states[name]
        if state is None:
            anchor = local_like(self._anchor.get(name), parameter)
            if anchor is None or not TensorState(anchor, like=anchor).fits(weights):
                anchor = weights
            state = TensorState(anchor, like=weights, storage=self._storage)
            self._check_rounding(name, anchor.to(weights), state)
            if not torch.isfinite(state.anchor).all():
                self._warn(f"{name}:anchor", f"{name} is not finite: it is projected once it has a finite anchor.")
                return None
            self._states[name] = state
        check_precision(name, weights, self.method)
        anchor = state.anchor
        state.follow(weights)
        self._check_rounding(name, anchor, state)
        return state

    def _check_rounding(self, name: str, exact: Tensor, state: TensorState) -> None:
        """Of an anchor that has just been copied."""
        if self._storage.anchor_dtype is not None and not self.round_anchor:
            check_rounding(name, exact, state.anchor)

    def _warn_of_skips(self, names: Sequence[str]) -> None:
        if new := [name for name in names if f"{name}:finite" not in self._warned]:
            self._warned.update(f"{name}:finite" for name in new)
            logger.warning(
                "%s: a gradient or weight is not finite; votes and rows with such numbers are left out, and the step "
                "is counted (FTP.skipped()).",
                new[0] if len(new) == 1 else f"{new[0]} and {len(new) - 1} more",
            )

    def _warn(self, key: str, message: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            logger.warning(message)

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Per tensor, by name: anchor, previous change, radius and its Adam state, steps, skipped steps."""
        if self._was_attached:
            self.warn_of_unseen_steps()
        tensors = {name: state.state_dict() for name, state in self._states.items()}
        for name, parameter in self._projected().items():
            if name in tensors and name in self._shardings:
                tensors[name] = _spread(tensors[name], parameter)
        return {"version": 1, "tensors": tensors}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; tensors are copied. Names that the model lacks now are kept for when it gains them.

        Names are compared without what wrappers put into them; those without a partner are named in a warning.

        Raises:
            ValueError: if it is not a state of FTP, or something in it is missing, unknown, of another kind or shape,
                negative or not finite, or does not fit the model's tensor. Nothing has changed then.
        """
        self._take_over(self._parse(state_dict))

    def _parse(self, state_dict: Mapping[str, Any]) -> dict[str, TensorState | FactorState]:
        known = isinstance(state_dict, Mapping) and state_dict.keys() == {"version", "tensors"}
        if not known or number(state_dict["version"]) != 1 or not isinstance(state_dict["tensors"], Mapping):
            raise ValueError("This is no state dict of FTP (version 1).")
        states, adapters = self._read(state_dict["tensors"]), self._adapters.by_name()
        for parameter, name in self._names.items():
            state = states.get(name)
            if state is None:
                continue
            if name not in self._excluded and isinstance(state, FactorState) is not (name in adapters):
                raise ValueError(
                    f"The saved state of {name!r} is that of {'a tensor' if name in adapters else 'an adapter'}, which "
                    f"it is not in this model, or was not for FTP then."
                )
            if not state.fits(parameter if isinstance(state, FactorState) else local(parameter)):
                raise ValueError(
                    f"The saved state of {name!r} has shape {tuple(state.shape)}, the model's tensor "
                    f"{tuple(parameter.shape)}."
                )
            if name in adapters and len(state.norms) != (rows := len(adapters[name].rows(local(parameter)))):
                raise ValueError(
                    f"The saved state of {name!r} has norms of {len(state.norms)} rows, the adapter {rows} rows."
                )
        return states

    def _take_over(self, states: dict[str, TensorState | FactorState]) -> None:
        lacking = [name for name, p in self._projected().items() if p.requires_grad and name not in states]
        unknown = [name for name in states if name not in self._names.values()]
        if self._names and states and (lacking or unknown):
            logger.warning(
                "The loaded state of FTP and the model do not have the same tensors. "
                "Only the state has, for later: %s. Only the model has, with new anchors and radii: %s.",
                _listed(unknown),
                _listed(lacking),
            )
        self._states = states

    def _read(self, saved: Mapping[str, Any]) -> dict[str, TensorState | FactorState]:
        states: dict[str, TensorState | FactorState] = {}
        sharded = {name: parameter for parameter, name in self._names.items() if name in self._shardings}
        for name, tensor in saved.items():
            try:
                if name in sharded and isinstance(tensor, Mapping):
                    tensor = {
                        key: value
                        if key == "shape" or (key == "norms" and self._shardings[name].spread)
                        else local_like(value, sharded[name])
                        for key, value in tensor.items()
                    }
                if FactorState.is_saved(tensor):
                    state: TensorState | FactorState = FactorState.from_state_dict(tensor)
                else:
                    state = TensorState.from_state_dict(tensor, self._storage, part=name in sharded)
                    self._check_rounding(name, tensor["anchor"], state)
            except ValueError as error:
                raise ValueError(f"The saved state of {name!r:.80} cannot be used: {error}.") from None
            if not isinstance(name, str) or canonical_name(name) in states:
                raise ValueError(f"The saved state's {name!r:.80} is no name, or that of another tensor in it, too.")
            states[canonical_name(name)] = state
        return states

    def _add_state(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        own = self.state_dict()
        if is_called_by("_get_optim_state_dict"):
            return riding(optimizer, state_dict, own["tensors"], self._names)
        return {**state_dict, STATE_KEY: own}

    def _take_state(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Check FTP's part; it is taken over once the optimizer has taken its own, which it may refuse."""
        tensors, rest = taken_off(optimizer, state_dict, self._names)
        own = {"version": 1, "tensors": tensors} if tensors else state_dict.get(STATE_KEY)
        state_dict = {key: value for key, value in rest.items() if key != STATE_KEY}
        self._loading = None if own is None else self._parse(own)
        if self._loading is None:
            logger.warning("The loaded optimizer state holds none of FTP's: anchors and radii stay as they are.")
        groups, saved = optimizer.param_groups, state_dict.get("param_groups", ())
        if len(groups) == len(saved):  # torch drops what a group says to FTP if the saved one does not say it
            told = [{key: group[key] for key in _GROUP_KEYS if key in group} for group in groups]
            state_dict["param_groups"] = [{**own, **group} for own, group in zip(told, saved, strict=True)]
        return state_dict

    def _state_is_loaded(self, optimizer: Optimizer) -> None:
        states, self._loading = self._loading, None
        if states is not None:
            self._take_over(states)

    # ---- readings ---------------------------------------------------------------------------------------------------

    def radii(self) -> dict[str, float]:
        """Gamma of each tensor that has been projected, in units of a row's L1 norm."""
        self.warn_of_unseen_steps()
        return {name: numbers[VALUE] for name, _, _, numbers in self._active()}

    def distances(self) -> dict[str, Tensor]:
        """Row-wise L1 distance of the current weights from the anchor, per tensor, shape [anchored rows], on CPU."""
        return {name: self._distance(name, weights, state).cpu() for name, weights, state, _ in self._active()}

    def _distance(self, name: str, weights: nn.Parameter, state: Any) -> Tensor:
        if (adapter := self._adapters.of(weights)) is not None:
            norms = adapter.norms()
            return whole(spread_like(norms, weights)) if name in self._shardings else norms
        if name not in self._shardings:
            distance: Tensor = state.distance(weights)
            return distance
        return row_norms(whole(weights).detach() - whole(spread_like(state.anchor.to(weights.device), weights)))

    def skipped(self) -> dict[str, int]:
        """Steps in which something was not finite, for tensors that have any."""
        return {name: int(numbers[SKIPPED]) for name, numbers in self._numbers().items() if numbers[SKIPPED]}

    def summary(self) -> dict[str, dict[str, float]]:
        """Radius and distances of each tensor that has been projected, as plain numbers.

        Per tensor: `radius`, `mean_distance` and `max_distance` (row-wise L1, as `distances`), and `boundary_share`,
        the share of rows that the last step pulled back onto the boundary.
        """
        self.warn_of_unseen_steps()
        table = {}
        for name, weights, state, numbers in self._active():
            distance, norms = self._distance(name, weights, state), state.norms
            if name in self._shardings and not self._shardings[name].spread:
                norms = whole(spread_like(norms, weights))
            table[name] = {
                "radius": numbers[VALUE],
                "mean_distance": distance.mean().item(),
                "max_distance": distance.max().item(),
                "boundary_share": (norms > numbers[VALUE]).float().mean().item(),
            }
        return table

    def warn_of_unseen_steps(self) -> None:
        """Warn, once, of tensors that have changed since `attach` without a step that was followed by a projection."""
        optimizer = None if self._optimizer is None else self._optimizer()
        free = {
            parameter
            for group in ([] if optimizer is None else optimizer.param_groups)
            if not group.get("ftp", True)
            for parameter in group["params"]
        }
        changed = [
            name
            for name, parameter in self._projected().items()
            if name in self._at_rest and name not in self._states and parameter not in free
            if _differs(parameter, self._at_rest[name])
        ]
        if changed:
            self._warn(
                "unseen",
                f"{changed[0]}{f' and {len(changed) - 1} more' * (len(changed) > 1)} changed without a step that FTP "
                f"saw, and are not projected: attach() FTP to the optimizer whose step() is called.",
            )

    def _remember_weights(self) -> None:
        """For `warn_of_unseen_steps`."""
        self._at_rest = {
            name: _sample(parameter)
            for name, parameter in self._projected().items()
            if parameter.requires_grad and name not in self._states and problem_of(parameter) is None
        }

    def _numbers(self) -> dict[str, list[float]]:
        """Radius, moments and counts of each state; read from the devices, and skips are said."""
        numbers: dict[str, list[float]] = {}
        for device in {state.numbers.device for state in self._states.values()}:
            here = {name: state.numbers for name, state in self._states.items() if state.numbers.device == device}
            numbers |= zip(here, torch.stack(list(here.values())).tolist(), strict=True)
        self._warn_of_skips([name for name, line in numbers.items() if line[SKIPPED]])
        return numbers

    def _active(self) -> Iterator[tuple[str, nn.Parameter, TensorState | FactorState, list[float]]]:
        """Tensors that are projected now and have been before, with their numbers, in the model's order."""
        numbers = self._numbers()
        for parameter, name in self._names.items():
            adapter = self._adapters.of(parameter)
            if adapter is not None and not adapter.exists:
                continue
            if name in numbers and numbers[name][STEPS] > 0 and name not in self._excluded:
                yield name, parameter, self._states[name], numbers[name]


def _spread(state: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """The state of a tensor that is spread over processes, as tensors that are."""
    parts = ["anchor", "change", *["norms"] * (parameter.dim() > 1)]
    return {key: spread_like(value, parameter) if key in parts else value for key, value in state.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:20], *[f"{len(names) - 20} more"] * (len(names) > 20)]) or "none"


def _sample(weights: Tensor) -> Tensor:
    """Copies of up to about two thousand of the elements."""
    return weights.detach().flatten()[:: max(1, weights.numel() // 1024)].clone()


def _differs(weights: Tensor, sample: Tensor) -> bool:
    """Not if only device or dtype has changed."""
    now = _sample(weights).to(sample.device)
    return now.dtype == sample.dtype and not torch.allclose(now, sample, rtol=0, atol=0, equal_nan=True)
