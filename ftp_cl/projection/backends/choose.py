"""The choice among backends by name."""

import importlib.util
import logging
import os
from collections.abc import Callable

import torch

from ftp_cl.projection.backends.protocol import Backend

logger = logging.getLogger(__name__)


def _torch() -> Backend:
    from ftp_cl.projection.backends.torch import TorchBackend

    return TorchBackend()


def _special() -> list[Backend]:
    """What works on adapters, and on tensors that are spread over processes, before the others."""
    from ftp_cl.projection.backends.factored import FactoredBackend

    if not torch.distributed.is_available():
        return [FactoredBackend()]
    from ftp_cl.projection.backends.sharded import ShardedBackend

    return [FactoredBackend(), ShardedBackend()]


def _numba() -> Backend:
    from ftp_cl.projection.backends.numba import NumbaBackend

    return NumbaBackend()


def _triton() -> Backend:
    from ftp_cl.projection.backends.triton import TritonBackend

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
"""Those that "auto" uses, each for the tensors that it takes. Not triton, whose kernels have not run on a GPU yet."""


def available_backends() -> list[str]:
    """Names that `get_backends` accepts in this environment."""
    return [name for name, (_, missing) in _BACKENDS.items() if missing() is None]


def get_backends(name: str) -> tuple[Backend, ...]:
    """The backend of that name, and plain torch for the tensors that it does not take; "auto": the fastest for each.

    Raises:
        ValueError: for an unknown name, or one that does not work here.
    """
    if name == "auto":
        return _automatic()
    build, missing = _BACKENDS.get(name, (None, lambda: "is unknown"))
    problem = missing()
    if problem is not None or build is None:
        available = ", ".join(map(repr, available_backends()))
        raise ValueError(f"backend={name!r} {problem}; available are 'auto', {available}.")
    return (*_special(), build()) if name == "torch" else (*_special(), build(), _torch())


def _automatic() -> tuple[Backend, ...]:
    backends = _special()
    for name in _AUTOMATIC:
        build, missing = _BACKENDS[name]
        if missing() is not None:
            continue
        try:
            backends.append(build())
        except ImportError as error:  # installed, but at odds with another package
            logger.warning("The %s backend cannot be loaded: %s", name, error)
    logger.info("The projection runs on these backends: %s.", ", ".join(backend.name for backend in backends))
    return tuple(backends)
