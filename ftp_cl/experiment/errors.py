"""error.json in the directory of a run that failed: until it is tried again, for people and for `ftp-cl watch`."""

import json
import os
import time
import traceback
from pathlib import Path

from ftp_cl.report import ERROR_FILE, replace_files

SWEEP_VARIABLE = "FTP_CL_SWEEP"
"""Has the name of the sweep that a run belongs to, if it does."""


def write_error(directory: Path, error: Exception) -> bool:
    """Whether error.json could be written: a full disk must not hide the error itself."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    content = {
        "sweep": os.environ.get(SWEEP_VARIABLE),
        "error": sentence if isinstance(error, ValueError) else f"{type(error).__name__}: {sentence}",
        "traceback": "".join(traceback.format_exception(error)),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    try:
        replace_files({directory / ERROR_FILE: json.dumps(content, indent=1).encode()})
    except OSError:
        return False
    return True


def clear_error(directory: Path) -> None:
    """Remove what an earlier try has left."""
    (directory / ERROR_FILE).unlink(missing_ok=True)
