"""FTP in the training loops of other libraries, in three lines of a user's script; see docs/trainers.md."""

import importlib
from typing import TYPE_CHECKING, Any

from ftp_cl.integrations.accelerate import attach_ftp
from ftp_cl.integrations.transformers import FTPTrainerMixin

if TYPE_CHECKING:
    from ftp_cl.integrations.lightning import FTPCallback

__all__ = ["FTPCallback", "FTPTrainerMixin", "attach_ftp"]


def __getattr__(name: str) -> Any:
    """Import Lightning only for those who ask for its callback."""
    if name != "FTPCallback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.lightning").FTPCallback
