"""The choice among backends by name: `mine` is the class `MineBackend` of the file `mine_backend.py` here."""

import importlib
import importlib.util
import logging
import os
import pkgutil

import torch

from ftp_cl.projection import backends as folder
from ftp_cl.projection.backends.protocol import Backend

logger = logging.getLogger(__name__)

_SUFFIX = "_backend"


def _names() -> list[str]:
    modules = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    return sorted(name.removesuffix(_SUFFIX) for name in modules if name.endswith(_SUFFIX))


def _built(name: str) -> Backend:
    module = importlib.import_module(f"{folder.__name__}.{name}{_SUFFIX}")
    backend: Backend = getattr(module, f"{name.capitalize()}Backend")()
    return backend


def _special() -> list[Backend]:
    """What works on adapters, and on tensors that are spread over processes, before the others."""
    from ftp_cl.projection.backends.factored import FactoredBackend

    if not torch.distributed.is_available():
        return [FactoredBackend()]
    from ftp_cl.projection.backends.sharded import ShardedBackend

    return [FactoredBackend(), ShardedBackend()]


def triton_is_interpreted() -> bool:
    """Whether Triton's own switch has kernels interpreted, on the CPU: so tests check them without a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


_AUTOMATIC = ("numba", "triton", "torch")
"""Those that "auto" uses, each for the tensors that it takes."""


def available_backends() -> list[str]:
    """Names that `get_backends` accepts in this environment."""
    return [name for name in _names() if _problem(name) is None]


def _problem(name: str) -> str | None:
    """What keeps a backend from working here, of those that need more than torch."""
    if name == "numba" and not importlib.util.find_spec("numba"):
        return "is not installed: pip install 'ftp-cl[fast]'"
    if name == "triton" and not importlib.util.find_spec("triton"):
        return "is not installed: the package triton comes with torch for GPUs on Linux"
    if name == "triton" and not (torch.cuda.is_available() or triton_is_interpreted()):
        return "needs a GPU"
    return None


def get_backends(name: str) -> tuple[Backend, ...]:
    """The backend of that name, and plain torch for the tensors that it does not take; "auto": the fastest for each.

    Raises:
        ValueError: for an unknown name, or one that does not work here.
    """
    if name == "auto":
        return _automatic()
    problem = _problem(name) if name in _names() else "is unknown"
    if problem is not None:
        available = ", ".join(map(repr, available_backends()))
        raise ValueError(f"backend={name!r} {problem}; available are 'auto', {available}.")
    return tuple([*_special(), *(_built(each) for each in dict.fromkeys((name, "torch")))])


def _automatic() -> tuple[Backend, ...]:
    backends = _special()
    for name in _AUTOMATIC:
        if _problem(name) is not None:
            continue
        try:
            backends.append(_built(name))
        except ImportError as error:  # installed, but at odds with another package
            logger.warning("The %s backend cannot be loaded: %s", name, error)
    logger.info("The projection runs on these backends: %s.", ", ".join(backend.name for backend in backends))
    return tuple(backends)
