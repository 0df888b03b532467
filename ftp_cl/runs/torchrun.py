"""What torchrun tells the processes that it starts."""

import os

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def has_others() -> bool:
    """Whether other processes were started together with this one."""
    return all(name in os.environ for name in _VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Whether this process writes and prints; one alone does."""
    return not has_others() or os.environ["RANK"] == "0"


def is_first_here() -> bool:
    """Whether this process is the first on its machine."""
    return not has_others() or os.environ.get("LOCAL_RANK", "0") == "0"
