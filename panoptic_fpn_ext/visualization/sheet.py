"""Images side by side, one row each."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["contact_sheet"]

_GAP, _HEADER = 8, 36  # px
_WHITE = 255
_Image = npt.NDArray[np.uint8]


def contact_sheet(
    rows: Sequence[Sequence[_Image]], titles: Sequence[str], cell_width: int = 480
) -> npt.NDArray[np.uint8]:
    """Put images into a table with a title above each column.

    Args:
        rows: images uint8 (H, W, 3), RGB, of any sizes; those of one row should have the same aspect ratio.
        titles: one a column, in ASCII.
        cell_width: width of every image on the sheet, in px.

    Returns:
        uint8 (H', W', 3), RGB, on white.

    Raises:
        ValueError: no row, or one with another number of images than there are titles.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(
            f"Every row needs {len(titles)} images ({', '.join(titles)}), got {[len(row) for row in rows]}."
        )
    strips = [_header(titles, cell_width)]
    strips += [_row([_fit(image, cell_width) for image in row]) for row in rows]
    return np.concatenate(strips)


def _fit(image: _Image, width: int) -> _Image:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrink = width < image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC))


def _row(cells: Sequence[_Image]) -> _Image:
    """One strip, the cells at its top, white between them and below."""
    width = cells[0].shape[1]
    strip = np.full((max(c.shape[0] for c in cells) + _GAP, _strip_width(len(cells), width), 3), _WHITE, dtype=np.uint8)
    for index, cell in enumerate(cells):
        left = _GAP + index * (width + _GAP)
        strip[: cell.shape[0], left : left + width] = cell
    return strip


def _header(titles: Sequence[str], width: int) -> _Image:
    strip = np.full((_HEADER, _strip_width(len(titles), width), 3), _WHITE, dtype=np.uint8)
    for index, title in enumerate(titles):
        origin = (_GAP + index * (width + _GAP), _HEADER - 12)
        cv2.putText(strip, title, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
    return strip


def _strip_width(columns: int, width: int) -> int:
    return _GAP + columns * (width + _GAP)
