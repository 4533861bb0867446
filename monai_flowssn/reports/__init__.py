"""Reports of evaluations: their tables of cases with intervals, side by side, and beside published numbers."""

from monai_flowssn.reports.published import PUBLISHED, Published
from monai_flowssn.reports.report import report
from monai_flowssn.reports.runs import Run, pool_tables, read_runs, read_table

__all__ = ["PUBLISHED", "Published", "Run", "pool_tables", "read_runs", "read_table", "report"]
