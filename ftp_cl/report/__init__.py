"""Reports: result files of runs -> tables, figures and one HTML page."""

from ftp_cl.report.files import is_temporary, read_file, replace_files
from ftp_cl.report.groups import Group, Spread, aggregate
from ftp_cl.report.loading import RESULT_SCHEMA, ReportError, Result, TensorProjection, load_results
from ftp_cl.report.run_directory import (
    CONFIG_FILE,
    ERROR_FILE,
    EVENTS_FILE,
    LOCK_FILE,
    RESULT_FILE,
    STATES,
    RunStatus,
    is_locked,
    statuses,
)
from ftp_cl.report.tables import terminal_table
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
    "ReportError",
    "ReportPaths",
    "Result",
    "RunStatus",
    "Spread",
    "TensorProjection",
    "aggregate",
    "is_locked",
    "is_temporary",
    "load_results",
    "read_file",
    "replace_files",
    "statuses",
    "terminal_table",
    "write_figure",
    "write_report",
]
