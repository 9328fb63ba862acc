"""The categories of the synthetic street, with the ids and gaps of COCO panoptic."""

from __future__ import annotations

from typing import Any

_TABLE = (
    # id, name, supercategory, isthing, colour
    (1, "person", "person", 1, (220, 20, 60)),
    (3, "car", "vehicle", 1, (0, 0, 142)),
    (6, "bus", "vehicle", 1, (0, 160, 200)),
    (13, "traffic sign", "outdoor", 1, (230, 200, 0)),
    (149, "road", "ground", 0, (128, 64, 128)),
    (184, "vegetation", "plant", 0, (70, 142, 35)),
    (185, "fence", "structural", 0, (190, 130, 100)),
    (187, "sky", "sky", 0, (70, 130, 180)),
    (191, "sidewalk", "ground", 0, (244, 35, 232)),
    (193, "terrain", "ground", 0, (152, 251, 152)),
    (197, "building", "building", 0, (70, 70, 70)),
)

PERSON, CAR, BUS, SIGN = 1, 3, 6, 13
ROAD, VEGETATION, FENCE, SKY, SIDEWALK, TERRAIN, BUILDING = 149, 184, 185, 187, 191, 193, 197

COLOURS: dict[int, tuple[int, int, int]] = {row[0]: row[4] for row in _TABLE}
THINGS = frozenset(row[0] for row in _TABLE if row[3])


def categories() -> list[dict[str, Any]]:
    """The ``categories`` list of a COCO panoptic JSON, sorted by id; a fresh copy each time."""
    keys = ("id", "name", "supercategory", "isthing", "color")
    return [dict(zip(keys, (*row[:4], list(row[4])), strict=True)) for row in _TABLE]
