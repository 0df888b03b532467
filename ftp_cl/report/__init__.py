"""Reports: result files of runs -> tables, figures and one HTML page."""

from ftp_cl.report.comparison import paired_interval
from ftp_cl.report.files import is_temporary, open_file, read_file, replace_files
from ftp_cl.report.groups import Group, Spread, aggregate
from ftp_cl.report.loading import (
    RESULT_SCHEMA,
    ReportError,
    Result,
    TensorProjection,
    find_results,
    load_results,
    results_of_rows,
)
from ftp_cl.report.rows import RUNS_FILE, frame_of_runs, read_frame, runs_of_frame
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
    "RUNS_FILE",
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
    "frame_of_runs",
    "is_locked",
    "is_temporary",
    "load_results",
    "open_file",
    "paired_interval",
    "printable",
    "read_file",
    "read_frame",
    "replace_files",
    "results_of_rows",
    "runs_of_frame",
    "statuses",
    "terminal_table",
    "write_figure",
    "write_report",
]
