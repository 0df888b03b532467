"""The implementations of the two operations of FTP, vote and project, and the choice among them by name."""

import importlib.util
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

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


_BACKENDS: dict[str, tuple[Callable[[], Backend], str | None]] = {
    # The fastest first: "auto" takes the first that is available.
    "numba": (_numba, "numba"),
    "torch": (_torch, None),
}
"""Name -> (constructor, the package it needs)."""


def available_backends() -> list[str]:
    """Names that `get_backend` accepts in this environment, the fastest first."""
    return [name for name, (_, package) in _BACKENDS.items() if package is None or importlib.util.find_spec(package)]


def get_backend(name: str) -> Backend:
    """The backend of that name; "auto" is the fastest that is available.

    Raises:
        ValueError: for an unknown name, or one whose package is not installed.
    """
    available = available_backends()
    if name != "auto" and name not in available:
        problem = "is not installed: pip install 'ftp-cl[fast]'" if name in _BACKENDS else "is unknown"
        raise ValueError(f"backend={name!r} {problem}; available are 'auto', {', '.join(map(repr, available))}.")
    return _load_fastest() if name == "auto" else _BACKENDS[name][0]()


@cache
def _load_fastest() -> Backend:
    for name in available_backends():
        try:
            backend = _BACKENDS[name][0]()
        except ImportError as error:  # installed, but at odds with another package
            logger.warning("The %s backend cannot be loaded: %s", name, error)
            continue
        logger.info("The projection runs on the %s backend.", name)
        return backend
    raise AssertionError("plain torch is always there")
