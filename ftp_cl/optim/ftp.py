"""FTP on any torch optimizer, through torch's own step hooks.

One class for users, a quarter of which is its documentation; what it does is in the modules beside it.
"""

import math
import weakref
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ftp_cl.optim.checkpoints import Riding
from ftp_cl.optim.checks import METHODS, check_k, followers, stepping, storage
from ftp_cl.optim.names import Exclude, NamedParameters, exclude_entries
from ftp_cl.optim.next_adapter import keep_changes
from ftp_cl.optim.readings import Readings
from ftp_cl.optim.states import States
from ftp_cl.optim.step import Step
from ftp_cl.optim.step_hooks import begin_with, is_called_by, is_outermost
from ftp_cl.optim.told import Told, logger
from ftp_cl.optim.tracked import Tracked
from ftp_cl.optim.unseen import UnseenSteps
from ftp_cl.projection import Rule, Update, available_backends, get_backends
from ftp_cl.projection.checks import number


class FTP(Readings):
    """Keeps each weight tensor in a ball around its anchor while any optimizer trains it; learns each ball's radius.

    Fast Trainable Projection, arXiv 2310.19182, Algorithm 1. A row r is the weights of one output unit, W0 the anchor.
    After each `optimizer.step()`, FTP shortens each row of the change W - W0 that is longer (L1) than the tensor's
    radius gamma to gamma. Before that, gamma takes an Adam step against the vote sum_r <g_r, c'_r> / n_r(c'): g is the
    step's gradient, c' the previous step's change, n_r a row's L1 norm. FTP needs no extra forward or backward pass.

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ftp = FTP(model, exclude="head").attach(optimizer)

    peft's LoRA, LoHa and VeRA adapters: FTP keeps the change that each makes to its weight in a ball around 0, and
    stores neither anchor nor previous change (docs/lora.md).

    The optimizer stays what it is: schedulers, GradScaler, Accelerate and Lightning work as before. FTP's state is part
    of `optimizer.state_dict()` under the key "ftp": two tensors of each projected tensor's size (anchor and previous
    change) and a few numbers. torch does not copy hooks with an optimizer: after deepcopy or unpickling, call `attach`
    again.

    Args:
        parameters: the model, or its named parameters. With the model, FTP finds parameters that it gains later, and
            `exclude` takes module types; otherwise call `track`.
        k: factor in [0, 1] on votes that shrink a radius ("gradient annealing", section 4 of the paper). 1, the
            paper's default, leaves them; 0 lets radii only grow, which underfits less.
        anchor: weights to stay near, by name; they are copied. None: each tensor's weights right before its first
            optimizer step.
        exclude: what is not projected: parameter names, module names, shell patterns, module types. **Name a new
            classifier here**: with the default, (), FTP projects everything that is trained. A tied weight is
            excluded if any of its names is.
        method: "paper", the published rule: all rows vote on the radius. "exact": only rows that the previous step has
            shortened vote, the derivative of the loss by the radius (docs/hyper_optimizer.md). "one_pass": a variant
            in one pass over memory that keeps the anchor only; votes count one step later, the first radius is mu, and
            weights must be float32 or float64 (docs/speed.md).
        mu: step size of the radii, 1e-2 as published. A radius grows by at most about mu a step, in units of a row's
            L1 norm.
        backend: "torch"; "numba" (CPU; `pip install 'ftp-cl[fast]'`); "triton" (NVIDIA GPUs); or "auto": for each
            tensor Numba or Triton where they take it, else torch. All give the same results up to rounding, and read
            each other's state. Triton's kernels have not run on a GPU yet: on one, "auto" first tries them against
            plain torch (docs/speed.md).
        direction_dtype: of the previous change, which only votes on radii; `"bfloat16"` halves its memory. None: that
            of the weights, as published.
        anchor_dtype: of the anchors; `"bfloat16"` halves their memory, and is exact where the pretrained weights are
            bfloat16 numbers. None: that of the weights.
        round_anchor: True: round anchors to `anchor_dtype`, which moves weights. False: a step raises ValueError
            instead.
        anchor_device: keeps anchors elsewhere, for example on "cpu" while the weights are on a GPU; each step fetches
            them tensor by tensor. None: where the weights are.

    A parameter group can have `ftp_k`, its own k, or `ftp=False`, which leaves it free.

    DistributedDataParallel needs no change. Weights that are sharded along dimension 0 (`fully_shard`: FSDP2, HSDP)
    stay sharded, with up to three small collectives a step. FTP's state is sharded like them and is part of
    torch.distributed.checkpoint's `get_optimizer_state_dict`. Call `distances` and `summary` in all processes. FSDP's
    first version and other placements are refused.

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
        self.backend = backend
        self.round_anchor = round_anchor
        self._storage = storage(method, direction_dtype, anchor_dtype, anchor_device)
        self._told = Told()
        self._tracked = Tracked(method, self._told)
        self._make_parts(backend)
        self._unseen = UnseenSteps()
        self._optimizer: weakref.ref[Optimizer] | None = None
        self._given: weakref.ref[Optimizer] | None = None
        self._was_attached = False
        self._step_hooks: tuple[int, int] | None = None
        self._handles: list[Any] = []
        self.track(parameters, exclude=exclude_entries(exclude))
        self._states.given = self._states.checked_anchor(anchor)
        self._unseen.remember(self._tracked.projected(), self._states)

    def _make_parts(self, backend: str) -> None:
        """What no copy takes along."""
        self._states = States(self._tracked, self.method, self._storage, self.round_anchor, self._told)
        self._step = Step(self._tracked, self._states, get_backends(backend))
        self._riding = Riding(self._tracked, self._states, self.state_dict)

    @property
    def updates(self) -> list[Update]:
        """The step in progress, tensor by tensor; empty between steps."""
        return self._step.updates

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
        self._tracked.take(parameters, exclude, self._states)
        self._states.given.update(self._states.checked_anchor(anchor, complete=False))

    def projected_names(self) -> list[str]:
        """Names of the parameters that are projected once they get a gradient, in the model's order."""
        return list(self._tracked.projected())

    @property
    def has_adapters(self) -> bool:
        """Whether some of the model's adapters are kept in balls."""
        return bool(self._tracked.adapters.by_name())

    def restart(self) -> None:
        """Forget anchors and radii: each tensor is anchored anew at its weights right before its next step.

        An anchor that was given by name stays where it is; only radii start again. Adapters stay near no change, and
        begin with the radius of their longest row; `next_task` anchors them anew, too.
        """
        self._states.clear()
        self._unseen.forget()

    def next_task(self, *, merge: bool | None = None) -> list[str]:
        """Begin a new task around the weights as they are: `restart`, after adapters have kept what they have learned.

        See `next_adapter`, which takes `merge` and says what becomes of an adapter. Without adapters it is `restart`.
        """
        model, adapters = self._tracked.model, self._tracked.adapters.by_name().values()
        trained = [adapter for adapter in adapters if adapter.is_trained]
        frozen = keep_changes(model, trained, merge) if model is not None and trained else []
        if frozen:
            self.track()
        self.restart()
        return frozen

    def move_anchor(self, anchor: Mapping[str, Tensor] | None) -> None:
        """Restart around other weights; None: around those that each tensor has right before its next step.

        Raises:
            ValueError: if a projected tensor is missing in `anchor` or has another shape there.
        """
        self._states.given = self._states.checked_anchor(anchor)
        self.restart()

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
        if inner.state and not (self._states or self._states.given or self._was_attached):
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
            self._handles += self._riding.hooks(keeper)
        self._unseen.remember(self._tracked.projected(), self._states)
        return self

    def detach(self) -> None:
        """Leave the optimizer as it was before `attach`. The state is kept and serves a later `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._step.clear()
        self._optimizer = self._given = None

    def is_attached_to(self, optimizer: Any) -> bool:
        """Whether steps of this very optimizer object are followed by a projection."""
        return optimizer is not None and any(
            followed is not None and followed() is optimizer for followed in (self._optimizer, self._given)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Hooks do not travel: torch drops them when an optimizer is copied or pickled, so a copy is unattached."""
        states = {name: state.state_dict() for name, state in self._states.items()}
        unattached = dict.fromkeys(("_optimizer", "_given", "_riding", "_step"))
        return {**self.__dict__, **unattached, "_handles": [], "_states": (states, self._states.given)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_parts(self.backend if self.backend in available_backends() else "auto")
        states, self._states.given = state["_states"]
        self._states.update(self._states.read(states))

    # ---- one step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]] | None:
        """Collect votes: gradients are read before the step, because some optimizers overwrite them in it."""
        if not is_outermost(optimizer):
            return None
        self._step.forget()
        if is_called_by("_init_optim_state"):  # torch makes the optimizer's state there: no step to be counted
            list(self._step.updates_of(optimizer, self.k))
            return None
        # args are those of the unbound step: (optimizer, closure) or (optimizer,).
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is not None:  # gradients come from inside the step
            return begin_with(closure, lambda: self._begin(optimizer), args, kwargs)
        self._begin(optimizer)
        return None

    def _begin(self, optimizer: Optimizer) -> None:
        before, after = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        alone = (next(reversed(before)), next(iter(after))) == self._step_hooks
        self._step.begin(optimizer, Rule(self.mu, self.method), self.k, alone)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if is_outermost(optimizer):
            self._told.of_skips(self._step.end(optimizer, Rule(self.mu, self.method)))

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Per tensor, by name: anchor, previous change, radius and its Adam state, steps, skipped steps."""
        if self._was_attached:
            self.warn_of_unseen_steps()
        return self._states.saved()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state; tensors are copied. Names that the model lacks now are kept for when it gains them.

        Names are compared without what wrappers put into them; those without a partner are named in a warning.

        Raises:
            ValueError: if it is not a state of FTP, or something in it is missing, unknown, of another kind or shape,
                negative or not finite, or does not fit the model's tensor. Nothing has changed then.
        """
        self._states.replace(self._states.parse(state_dict))
