"""From what was counted to what people look at: pages of HTML, each one file that needs no network."""

from .dataset_page import dataset_page
from .runs import report_of_run
from .writer import write_report

__all__ = ["dataset_page", "report_of_run", "write_report"]
