"""The common form of annotations: what every source format is read into, before overlaps are decided.

Shapes: H, W image; h, w the box of a region. Coordinates are px, (0, 0) is the upper left corner of the upper left
pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ...coco_fields import runs_of_text

__all__ = [
    "BEYOND",
    "BoxMask",
    "MapRow",
    "Region",
    "Source",
    "SourceImage",
    "is_beyond",
    "mask_of_array",
    "mask_of_polygons",
    "mask_of_rle",
    "mask_of_row_runs",
    "regions_of_ids",
]

_MOST_UNLISTED = 10
_MARGIN = 0.05
_FAR = 10_000  # px; pycocotools walks along the outline, outside the image too
_UNLISTED = "void, because it is no category, in the map of an image"

BEYOND = "part of a polygon that lies outside the image"
"""What is said of polygons that :func:`is_beyond`; of less, the tools themselves are not exact."""

MapRow = tuple[int, bool] | str | None
"""What a value of a map is: a category (dataset id) and whether it is a crowd; None for void; what to call a value that
is neither."""


@dataclass(frozen=True, eq=False)
class BoxMask:
    """A mask cut to its box: bool (h, w), whose upper left pixel is ``(x, y)`` of the image."""

    x: int
    y: int
    mask: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def window(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part (h, w) of an array (H, W) that the box covers; a view."""
        height, width = self.mask.shape
        return image[self.y : self.y + height, self.x : self.x + width]


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated area of an image; areas may overlap.

    ``category`` is a dataset id. ``z`` orders regions of one layer, higher ones on top. Regions of one ``group`` (not
    None) and category are one segment.
    """

    category: int
    mask: BoxMask
    iscrowd: bool = False
    z: float = 0.0
    group: Any = None


@dataclass(frozen=True)
class SourceImage:
    """One image of a source dataset.

    ``path`` is the file, ``name`` what the result calls it: relative, with ``/``. ``regions`` takes (H, W) and gives
    the image's regions and counts of what it dropped, by reason; it runs in another process, so it can be pickled.
    ``size`` is (H, W) as the annotation says, if it does. ``split`` is the source's own, if it has one. An image with a
    ``problem`` is left out, and the problem is reported. ``content`` gives the bytes of an image that ``path`` holds
    among other things; it can be pickled, too. ``files`` are those of its annotation alone, as maps are, by whose
    change the conversion is seen to be out of date; they need not exist.
    """

    path: str
    name: str
    regions: Callable[[tuple[int, int]], tuple[list[Region], Mapping[str, int]]] | None = None
    size: tuple[int, int] | None = None
    split: str | None = None
    image_id: int | str | None = None
    problem: str | None = None
    content: Callable[[], bytes] | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset in any format.

    ``categories`` has ``id``, ``name`` and, where the format knows it, ``isthing`` and ``color``.
    ``things_by_default`` says what the categories are of which nothing is known. ``notes`` say what was left out while
    reading, and why. ``files`` are the annotation files, by whose change the conversion is seen to be out of date.
    ``void`` are names of categories that the format has for what is void.
    """

    categories: Sequence[Mapping[str, Any]]
    images: Sequence[SourceImage]
    files: Sequence[str]
    things_by_default: bool = True
    notes: Sequence[str] = field(default_factory=tuple)
    void: Sequence[str] = ()


def mask_of_array(mask: npt.NDArray[np.bool_], x: int = 0, y: int = 0) -> BoxMask | None:
    """The mask bool (h, w) whose upper left pixel is ``(x, y)``, cut to its pixels; None if it has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return BoxMask(x + int(left), y + int(top), mask[top:bottom, left:right])


def mask_of_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> BoxMask | None:
    """The union of polygons, filled as COCO's own tools fill them.

    Args:
        polygons: each ``x1, y1, x2, y2, …`` in px, of at least three points; parts outside the image are cut off.
        size: (H, W).

    Returns:
        None if there is no pixel inside.

    Raises:
        ValueError: a polygon of fewer than three points, a coordinate that is no finite number, or one so far outside
            that its outline alone would fill the memory.
    """
    points = [np.asarray(p, dtype=np.float64).reshape(-1) for p in polygons]
    if any(len(p) < 6 or len(p) % 2 or not np.isfinite(p).all() for p in points):
        raise ValueError("a polygon needs three points or more, each of two finite numbers.")
    if not points:
        return None
    far = max(float(np.abs(p).max()) for p in points)
    if far > 10 * max(size) + _FAR:
        raise ValueError(f"a polygon with a coordinate of {far:g} in an image of (height, width) {size}.")
    rle = coco_mask.merge(coco_mask.frPyObjects([p.tolist() for p in points], *size))
    return _mask_of_columns(np.array(runs_of_text(rle["counts"].decode())), size[0])


def _mask_of_columns(runs: npt.NDArray[np.int64], height: int) -> BoxMask | None:
    """A mask of sound runs column by column, of which only the columns that have pixels are drawn."""
    runs = runs if len(runs) % 2 == 0 else runs[:-1]  # ends with pixels
    if not len(runs):
        return None
    left = int(runs[0]) // height
    right = -(-int(runs.sum()) // height)
    inside = np.append(runs, (right - left) * height - (runs.sum() - left * height))
    inside[0] -= left * height
    pixels = np.repeat(np.arange(len(inside)) % 2 == 1, inside)
    return mask_of_array(pixels.reshape(right - left, height).T, left)


def is_beyond(points: npt.NDArray[np.float64], size: tuple[int, int]) -> bool:
    """Whether points (P, 2), x and y in px, lie outside an image by more than a twentieth of it."""
    share = points / np.array([size[1], size[0]])
    return bool(len(points) and (share.min() < -_MARGIN or share.max() > 1 + _MARGIN))


def mask_of_rle(rle: Mapping[str, Any], size: tuple[int, int]) -> BoxMask | None:
    """A mask of COCO's run-length encoding: ``counts`` a list or a compressed string, ``size`` (H, W).

    Raises:
        ValueError: it is broken, or of another size than the image.
    """
    counts, given = rle.get("counts"), rle.get("size")
    if not isinstance(given, Sequence) or [*given] != [*size]:
        raise ValueError(f"a run-length mask of size {given} in an image of (height, width) {size}.")
    if isinstance(counts, Sequence) and not isinstance(counts, str | bytes):
        return mask_of_array(_mask_of_counts(counts, size, column_by_column=True))
    if not isinstance(counts, str | bytes):
        raise ValueError("a run-length mask without counts.")
    data = counts.encode() if isinstance(counts, str) else bytes(counts)
    try:  # pycocotools itself reads past the end of a broken one
        total = sum(runs_of_text(data.decode()))
        if total != size[0] * size[1]:
            raise ValueError(f"its runs have {total} pixels, not {size[0] * size[1]}")
        return mask_of_array(coco_mask.decode({"counts": data, "size": [*size]}).astype(bool))
    except ValueError as error:
        raise ValueError(f"a run-length mask that is broken: {error}.") from error


def _mask_of_counts(counts: Sequence[Any], size: tuple[int, int], column_by_column: bool) -> npt.NDArray[np.bool_]:
    runs = np.asarray(counts)
    if not np.issubdtype(runs.dtype, np.integer) and runs.size:
        raise ValueError("a run-length mask whose counts are no whole numbers.")
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"a run-length mask whose runs have {runs.sum()} pixels, not {size[0] * size[1]}.")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(size[::-1]).T if column_by_column else pixels.reshape(size)


def mask_of_row_runs(
    counts: Sequence[int], x: int, y: int, size: tuple[int, int], image_size: tuple[int, int]
) -> BoxMask | None:
    """A mask of runs row by row, as CVAT writes them: of a box (h, w) = ``size`` whose upper left pixel is (x, y).

    Raises:
        ValueError: it is broken, or larger than the image.
    """
    if min(size) < 0 or size[0] > image_size[0] or size[1] > image_size[1]:
        raise ValueError(f"a mask of (height, width) {size} in an image of {image_size}.")
    return mask_of_array(_mask_of_counts(counts, size, column_by_column=False), x, y)


def regions_of_ids(
    ids: npt.NDArray[np.integer], row_of: Callable[[int], MapRow]
) -> tuple[list[Region], Mapping[str, int]]:
    """The regions of a map of ids, which do not overlap, in the order of the ids.

    Args:
        ids: integers (H, W).
        row_of: what an id is.

    Returns:
        The regions, and counts of ids that are no category, by reason.
    """
    present, inverse = np.unique(ids, return_inverse=True)
    index_map = inverse.reshape(ids.shape).astype(np.int32)
    regions, unlisted = [], []
    for index, (y0, x0, y1, x1) in _boxes(index_map, len(present)):
        row = row_of(int(present[index]))
        if isinstance(row, str):
            unlisted.append(row)
        elif row is not None:
            mask = index_map[y0:y1, x0:x1] == index
            regions.append(Region(row[0], BoxMask(x0, y0, mask), iscrowd=row[1]))
    if len(set(unlisted)) > _MOST_UNLISTED:
        return regions, {f"{_UNLISTED}: many values, so it may have been resized or compressed with loss": 1}
    return regions, {f"{_UNLISTED}: {name}": 1 for name in unlisted}


def _boxes(index_map: npt.NDArray[np.int32], count: int) -> list[tuple[int, tuple[int, int, int, int]]]:
    from scipy import ndimage

    slices = ndimage.find_objects(index_map + 1, count)
    return [(i, (y.start, x.start, y.stop, x.stop)) for i, (y, x) in enumerate(s for s in slices if s is not None)]
