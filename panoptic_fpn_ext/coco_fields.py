"""What the fields of COCO's records may be: a table for each kind of record.

Whole numbers may be written as ``7``, ``7.0`` or ``"7"`` and flags as 0, 1, true,
false or their text, since exporters do; missing fields and null are taken only where COCO leaves a field out.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from .panoptic_png import MAX_SEGMENT_ID

__all__ = [
    "ANNOTATION",
    "CATEGORY",
    "IMAGE",
    "INSTANCE",
    "INSTANCE_CATEGORY",
    "MISSING",
    "PREDICTED_CATEGORY",
    "PREDICTED_SEGMENT",
    "REQUIRED",
    "SEGMENT",
    "UNNAMED_CATEGORY",
    "Field",
    "Row",
    "runs_of_text",
]

Row = dict[str, Any]

_MAX_ID = 2**63 - 1
_MAX_SIDE = 2**31 - 1
_MAX_AREA = 2**53
MISSING: Any = type("_Missing", (), {"__repr__": lambda self: "nothing"})()
REQUIRED: Any = type("_Required", (), {})()


class Field(NamedTuple):
    """What a field may be.

    ``expected``: in words. ``is_plain``: whether a whole column needs no conversion. ``convert``: a value, or
    ``ValueError``. ``missing``, ``null``: what stands for a missing field and for null; ``REQUIRED`` where there must
    be a value, ``MISSING`` where the field then stays away.
    """

    expected: str
    is_plain: Callable[[Sequence[Any]], bool]
    convert: Callable[[Any], Any]
    missing: Any = REQUIRED
    null: Any = REQUIRED


# -- what single values may be --------------------------------------------------------------------------------------


def _whole(low: int, high: int) -> Field:
    """A whole number in [low, high]."""

    def convert(value: Any) -> int:
        if type(value) is str and re.fullmatch(r"[0-9]{1,19}", value):
            value = int(value)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    def is_plain(column: Sequence[Any]) -> bool:
        return set(map(type, column)) == {int} and low <= min(column) and max(column) <= high

    return Field(f"a whole number from {low} to {high}", is_plain, convert)


def _flag(value: Any) -> int:
    text = str(value).lower() if type(value) in (int, bool, float, str) else ""
    if text not in _FLAGS:
        raise ValueError
    return _FLAGS[text]


_FLAGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def _is_flags(column: Sequence[Any]) -> bool:
    return set(map(type, column)) == {int} and set(column) <= {0, 1}


def _text(value: Any) -> str:
    if type(value) is not str or not value.strip() or "\0" in value:
        raise ValueError
    value.encode()  # refuses halves of characters, which no file can be called
    return value


def _are_texts(column: Sequence[Any]) -> bool:
    if set(map(type, column)) != {str} or not all(map(str.strip, column)):
        return False
    return "\0" not in (joined := "".join(column)) and joined.isascii()


def _name(value: Any) -> str:
    return str(value) if type(value) is int else _text(value)


def _image_id(value: Any) -> int | str:
    return _text(value) if type(value) is str else _IMAGE_NUMBER.convert(value)


def _are_image_ids(column: Sequence[Any]) -> bool:
    return _IMAGE_NUMBER.is_plain(column) or _are_texts(column)


def _number(value: Any) -> int | float:
    if type(value) is str and re.fullmatch(r"[0-9]{1,19}(\.[0-9]+)?", value):
        value = float(value) if "." in value else int(value)
    if type(value) not in (int, float) or not 0 <= value <= _MAX_AREA:
        raise ValueError
    number: int | float = value
    return number


def _are_numbers(column: Sequence[Any]) -> bool:
    if not set(map(type, column)) <= {int, float}:
        return False
    return not math.isnan(sum(column)) and min(column) >= 0 and max(column) <= _MAX_AREA


def _box(value: Any) -> list[int | float]:
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not _are_finite(value) or min(value[2:]) < 0:
        raise ValueError
    return list(value)


def _are_boxes(column: Sequence[Any]) -> bool:
    if set(map(type, column)) != {list} or set(map(len, column)) != {4}:
        return False
    return _are_finite(list(chain.from_iterable(column))) and min(min(box[2], box[3]) for box in column) >= 0


def _are_finite(values: Sequence[Any]) -> bool:
    if not set(map(type, values)) <= {int, float}:
        return False
    return not values or (not math.isnan(sum(values)) and min(values) >= -_MAX_SIDE and max(values) <= _MAX_SIDE)


def _color(value: Any) -> list[int]:
    if type(value) is str and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return list(bytes.fromhex(value[1:]))
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ValueError
    return [_COLOR_VALUE.convert(part) for part in value]


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError
    return value


def _numbers(value: Any) -> list[int | float]:
    if not _are_finite(_list(value)):
        raise ValueError
    return list(value)


def _segmentation(value: Any) -> Any:
    if type(value) is dict:
        return _rle(value)
    if type(value) is not list or not value or not all(type(p) is list and _are_finite(p) for p in value):
        raise ValueError
    return value


def _rle(value: Row) -> Row:
    size = [_SIDE.convert(side) for side in _list(value.get("size"))]
    counts = value.get("counts")
    runs = runs_of_text(counts) if type(counts) is str else _list(counts)
    if len(size) != 2 or set(map(type, runs)) != {int} or min(runs) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError
    return {**value, "size": size}


def runs_of_text(counts: str) -> list[int]:
    """Lengths of the runs of COCO's compressed RLE: five bits a character, from the third run on as differences."""
    runs: list[int] = []
    run = shift = 0
    for bits in (ord(character) - 48 for character in counts):
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError
        run |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            run -= (1 << shift) if bits & 16 else 0
            runs.append(run + (runs[-2] if len(runs) > 2 else 0))
            run = shift = 0
    if shift:
        raise ValueError
    return runs


def _any_column(column: Sequence[Any]) -> bool:
    return False


# -- the tables -----------------------------------------------------------------------------------------------------

_IMAGE_NUMBER = _whole(0, _MAX_ID)
_CATEGORY_ID = _whole(0, _MAX_ID)._replace(expected="a whole number, 0 or more")
_SIDE = _whole(1, _MAX_SIDE)._replace(expected="a whole number of pixels, 1 or more")
_COLOR_VALUE = _whole(0, 255)
_IMAGE_ID = Field("a whole number (0 or more) or a text", _are_image_ids, _image_id)
_FILE_NAME = Field("the name of a file", _are_texts, _text)
_FLAG = Field("0 or 1 (or false or true)", _is_flags, _flag)
_CROWD = _FLAG._replace(missing=0, null=0)
_AREA = Field("a number of pixels, 0 or more", _are_numbers, _number, MISSING, MISSING)
_BOX = Field("[x, y, width, height], four numbers", _are_boxes, _box, MISSING, MISSING)

IMAGE = {"id": _IMAGE_ID, "file_name": _FILE_NAME, "height": _SIDE, "width": _SIDE}
CATEGORY = {
    "id": _CATEGORY_ID,
    "name": Field("a name", _are_texts, _name),
    "isthing": _FLAG,
    "color": Field(
        'an RGB color, [r, g, b] of 0 to 255 or "#rrggbb"', _any_column, _color, missing=MISSING, null=MISSING
    ),
}
UNNAMED_CATEGORY = {**CATEGORY, "name": CATEGORY["name"]._replace(missing=MISSING)}
INSTANCE_CATEGORY = {key: CATEGORY[key] for key in ("id", "name")}
PREDICTED_CATEGORY = {**UNNAMED_CATEGORY, "isthing": CATEGORY["isthing"]._replace(missing=MISSING)}
ANNOTATION = {
    "image_id": _IMAGE_ID,
    "file_name": _FILE_NAME,
    "segments_info": Field("a list", lambda column: set(map(type, column)) == {list}, _list),
}
PREDICTED_SEGMENT = {
    "id": _whole(1, MAX_SEGMENT_ID)._replace(
        expected=f"a whole number from 1 to {MAX_SEGMENT_ID} (0 stands for unlabelled pixels)"
    ),
    "category_id": _CATEGORY_ID,
}
SEGMENT = {**PREDICTED_SEGMENT, "iscrowd": _CROWD, "area": _AREA, "bbox": _BOX}
INSTANCE = {
    "id": _CATEGORY_ID._replace(missing=MISSING, null=MISSING),
    "image_id": _IMAGE_ID,
    "category_id": _CATEGORY_ID,
    "iscrowd": _CROWD,
    "area": _AREA,
    "bbox": _BOX,
    "segmentation": Field(
        'polygons, [[x, y, x, y, …], …], or a run-length encoding, {"size": [height, width], "counts": …} of as many '
        "pixels",
        _any_column,
        _segmentation,
    ),
    "keypoints": Field("a list of numbers", _any_column, _numbers, MISSING, MISSING),
}
