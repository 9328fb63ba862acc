"""Writers of a small dataset in every source format: two photographs of one drawing, with different margins.

``SOURCES`` has for each name the writer, which gets a folder, and the description that converts it, where ``{root}``
stands for the folder.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from map_writers import MAP_SOURCES
from shape_writers import SHAPE_SOURCES

SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {**SHAPE_SOURCES, **MAP_SOURCES}


def photographs(root: Path) -> Iterator[Path]:
    """Those of a source, which no annotation is read from."""
    of_maps = ("maps", "masks", "pngs", "stuff", "semantic", "instances", "instance", "gtFine", "annotations")
    skipped = (*of_maps, "annotations_instance", "SegmentationClass", "SegmentationObject")
    for path in root.rglob("*"):
        inside = path.relative_to(root).parts[:-1]
        if path.suffix in (".png", ".jpg") and not set(inside) & set(skipped) and not path.stem.endswith("_seg"):
            yield path
