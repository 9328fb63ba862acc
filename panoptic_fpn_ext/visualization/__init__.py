"""Images of panoptic maps for people to look at."""

from .files import save_image
from .overlay import draw_panoptic
from .sheet import contact_sheet

__all__ = ["contact_sheet", "draw_panoptic", "save_image"]
