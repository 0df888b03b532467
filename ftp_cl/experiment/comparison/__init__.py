"""The comparison of methods on equal terms: one tuning budget, other seeds to report; see docs/protocol.md."""

from ftp_cl.experiment.comparison.plan import Plan, load_plan
from ftp_cl.experiment.comparison.run import compare
from ftp_cl.experiment.comparison.store import Store
from ftp_cl.experiment.comparison.tables import differences, mean_over_settings, write_tables

__all__ = ["Plan", "Store", "compare", "differences", "load_plan", "mean_over_settings", "write_tables"]
