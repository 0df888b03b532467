"""The implementations of the two operations of FTP, vote and project, and the choice among them by name."""

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from ftp_cl.projection.tensor_state import TensorState

logger = logging.getLogger(__name__)

Pairs = Sequence[tuple[TensorState, Tensor]]


class Backend(Protocol):
    """Both operations take all tensors of a step at once; each tensor may have another dtype, layout and device."""

    name: str

    def votes(self, gradients: Pairs) -> Sequence[Tensor | float]:
        """D = sum over rows of <g_r, c'_r> / n_r(c') of each tensor; not finite where the gradient is not.

        Tensors are 0-d and may still be computing on their device.

        Args:
            gradients: (state, g) with g of the weights' shape, as the base optimizer is about to use it.
        """

    def project(self, weights: Pairs) -> list[float]:
        """W_r = W0_r + min(1, gamma / n_r(c)) c_r with c = W~ - W0, in place; c and its norms go into the state.

        Args:
            weights: (state, W~) with the tensor after the base optimizer's step; overwritten.

        Returns:
            The largest row norm of each c, for `Radius.clip`; NaN where a weight was not finite: this tensor is as
            the base optimizer left it.
        """


def _torch() -> Backend:
    from ftp_cl.projection.torch_backend import TorchBackend

    return TorchBackend()


def _numba() -> Backend:
    from ftp_cl.projection.numba_backend import NumbaBackend

    return NumbaBackend()


def _triton() -> Backend:
    from ftp_cl.projection.triton_backend import TritonBackend

    return TritonBackend()


def _numba_missing() -> str | None:
    return None if importlib.util.find_spec("numba") else "is not installed: pip install 'ftp-cl[fast]'"


def _triton_missing() -> str | None:
    if not importlib.util.find_spec("triton"):
        return "is not installed: the package triton comes with torch for GPUs on Linux"
    return None if torch.cuda.is_available() or triton_is_interpreted() else "needs a GPU"


def triton_is_interpreted() -> bool:
    """Whether Triton's own switch has kernels interpreted, on the CPU: so tests check them without a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_BACKENDS: dict[str, tuple[Callable[[], Backend], Callable[[], str | None]]] = {
    "numba": (_numba, _numba_missing),
    "torch": (_torch, lambda: None),
    "triton": (_triton, _triton_missing),
}
"""Name -> (constructor, what keeps it from working here)."""

_AUTOMATIC = ("numba", "torch")
"""Those that "auto" chooses among, the fastest first. Not triton, whose speed has not been measured yet."""


def available_backends() -> list[str]:
    """Names that `get_backend` accepts in this environment."""
    return [name for name, (_, missing) in _BACKENDS.items() if missing() is None]


def get_backend(name: str) -> Backend:
    """The backend of that name; "auto" is the fastest that is available, triton apart.

    Raises:
        ValueError: for an unknown name, or one that does not work here.
    """
    if name == "auto":
        return _load_fastest()
    build, missing = _BACKENDS.get(name, (None, lambda: "is unknown"))
    problem = missing()
    if problem is not None or build is None:
        available = ", ".join(map(repr, available_backends()))
        raise ValueError(f"backend={name!r} {problem}; available are 'auto', {available}.")
    return build()


@cache
def _load_fastest() -> Backend:
    for name in _AUTOMATIC:
        build, missing = _BACKENDS[name]
        if missing() is not None:
            continue
        try:
            backend = build()
        except ImportError as error:  # installed, but at odds with another package
            logger.warning("The %s backend cannot be loaded: %s", name, error)
            continue
        logger.info("The projection runs on the %s backend.", name)
        return backend
    raise AssertionError("plain torch is always there")
