"""Fast Trainable Projection (FTP, arXiv 2310.19182) for continual learning with Avalanche and for plain PyTorch."""

import sys
from typing import TYPE_CHECKING, Any

from ftp_cl.renamed import OldPaths

if TYPE_CHECKING:
    from ftp_cl.optim import FTP
    from ftp_cl.plugins import FTPPlugin

__version__ = "0.2.0"
__all__ = ["FTP", "FTPPlugin"]

sys.meta_path.append(OldPaths())


def __getattr__(name: str) -> Any:
    # Importing torch and Avalanche takes seconds: FTP needs torch alone, and the version neither.
    if name == "FTP":
        from ftp_cl.optim import FTP

        return FTP
    if name == "FTPPlugin":
        from ftp_cl.plugins import FTPPlugin

        return FTPPlugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
