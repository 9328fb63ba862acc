"""From what was counted to what people look at: pages of HTML, each one file that needs no network."""

from .dataset_page import dataset_page

__all__ = ["dataset_page"]
