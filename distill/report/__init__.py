"""What a run looked like: a picture of its losses, and a page about all of it."""

from distill.report.page import REPORT, write_report
from distill.report.plot import plot_losses
from distill.report.settings import keep_recipe, kept_recipe

__all__ = ["REPORT", "keep_recipe", "kept_recipe", "plot_losses", "write_report"]
