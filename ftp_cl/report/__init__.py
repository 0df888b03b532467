"""Reports: result files of runs -> tables, figures and one HTML page."""

from ftp_cl.report.files import is_temporary, replace_files
from ftp_cl.report.groups import Group, Spread, aggregate
from ftp_cl.report.loading import RESULT_FILE, RESULT_SCHEMA, ReportError, Result, TensorProjection, load_results
from ftp_cl.report.tables import terminal_table
from ftp_cl.report.write import ReportPaths, write_figure, write_report

__all__ = [
    "RESULT_FILE",
    "RESULT_SCHEMA",
    "Group",
    "ReportError",
    "ReportPaths",
    "Result",
    "Spread",
    "TensorProjection",
    "aggregate",
    "is_temporary",
    "load_results",
    "replace_files",
    "terminal_table",
    "write_figure",
    "write_report",
]
