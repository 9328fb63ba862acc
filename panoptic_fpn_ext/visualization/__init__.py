"""Images of panoptic maps for people to look at."""

from .files import save_image
from .overlay import draw_panoptic
from .sheet import contact_sheet
from .video import VideoReader, VideoWriter

__all__ = ["VideoReader", "VideoWriter", "contact_sheet", "draw_panoptic", "save_image"]
