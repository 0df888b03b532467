"""Old names of what is in `ftp_cl.study` now; they go with the next release."""

import importlib
import warnings
from typing import Any

_NEW = {
    **dict.fromkeys(("Group", "Spread", "aggregate"), "groups"),
    **dict.fromkeys(("ReportError", "Result", "TensorProjection", "load_results"), "loading"),
    **dict.fromkeys(("ReportPaths", "write_figure", "write_report"), "write"),
    "terminal_table": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _NEW:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = f"ftp_cl.study.{_NEW[name]}"
    warnings.warn(f"ftp_cl.report.{name} is {place}.{name} now.", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(place), name)
