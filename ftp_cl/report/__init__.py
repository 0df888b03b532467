"""Reports: result files of runs -> tables, figures and one HTML page."""

from ftp_cl.report.groups import Group, Spread, aggregate
from ftp_cl.report.loading import ReportError, Result, TensorProjection, load_results
from ftp_cl.report.tables import terminal_table
from ftp_cl.report.write import ReportPaths, write_figure, write_report

__all__ = [
    "Group",
    "ReportError",
    "ReportPaths",
    "Result",
    "Spread",
    "TensorProjection",
    "aggregate",
    "load_results",
    "terminal_table",
    "write_figure",
    "write_report",
]
