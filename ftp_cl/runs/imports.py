"""How the command line imports PyTorch and Avalanche, which takes longer than a small run."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Import without collections of garbage, now and later: modules stay, and looking through them takes seconds.

    Only while PyTorch is not there: `gc.freeze` also keeps garbage, and models that become it, of which a new process
    has none.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
