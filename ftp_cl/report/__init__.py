"""Reports: result files of runs -> tables, figures and one HTML page."""

from ftp_cl.report.files import is_temporary, open_file, replace_files
from ftp_cl.report.groups import Group, Spread, aggregate
from ftp_cl.report.loading import RESULT_SCHEMA, ReportError, Result, TensorProjection, find_results, load_results
from ftp_cl.report.run_directory import (
    CONFIG_FILE,
    ERROR_FILE,
    EVENTS_FILE,
    LOCK_FILE,
    RESULT_FILE,
    STATES,
    LeftOut,
    RunStatus,
    is_locked,
    statuses,
)
from ftp_cl.report.tables import terminal_table
from ftp_cl.report.text import printable
from ftp_cl.report.write import ReportPaths, write_figure, write_report

__all__ = [
    "CONFIG_FILE",
    "ERROR_FILE",
    "EVENTS_FILE",
    "LOCK_FILE",
    "RESULT_FILE",
    "RESULT_SCHEMA",
    "STATES",
    "Group",
    "LeftOut",
    "ReportError",
    "ReportPaths",
    "Result",
    "RunStatus",
    "Spread",
    "TensorProjection",
    "aggregate",
    "find_results",
    "is_locked",
    "is_temporary",
    "load_results",
    "open_file",
    "printable",
    "replace_files",
    "statuses",
    "terminal_table",
    "write_figure",
    "write_report",
]
