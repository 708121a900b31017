"""What a run looked like: a picture of its losses, and a page about all of it."""

from distill.report.page import REPORT, write_report
from distill.report.plot import plot_losses

__all__ = ["REPORT", "plot_losses", "write_report"]
