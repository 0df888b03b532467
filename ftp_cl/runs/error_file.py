"""error.json in the directory of a run that failed: until it is tried again, for people and for `ftp-cl watch`."""

import contextlib
import json
import time
import traceback
from pathlib import Path

from ftp_cl.runs.files import replace_files
from ftp_cl.runs.output import sentence
from ftp_cl.runs.status import ERROR_FILE


def write_error(directory: Path, error: Exception) -> None:
    """Write error.json, if there is room: a full disk must not hide the error itself."""
    content = {
        "error": sentence(error),
        "traceback": "".join(traceback.format_exception(error)),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    with contextlib.suppress(OSError):
        replace_files({directory / ERROR_FILE: json.dumps(content, indent=1).encode()})


def clear_error(directory: Path) -> None:
    """Remove what an earlier try has left."""
    (directory / ERROR_FILE).unlink(missing_ok=True)
