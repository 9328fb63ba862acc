"""What the categories of a source become: things or stuff, their layers, and what unlabelled pixels are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ...index_masks import index_boxes
from .files import read_yaml
from .painting import Painted, paint
from .regions import Region, Source

__all__ = ["LabelOptions", "Labels", "choose_labels", "read_label_options"]


@dataclass(frozen=True)
class LabelOptions:
    """What a user says of the categories, by name.

    ``things`` and ``stuff``: where only one is given, all others are the other kind. ``layers``: from the lowest to the
    highest, ``"wall, road < person < hat"``; categories of one layer are separated by commas, unnamed ones are below
    all. ``leave_out``: categories whose pixels are void, also where they lie on others. ``unlabelled``: the stuff
    category of unlabelled pixels, which is added if there is none of that name; None for void.
    """

    things: Sequence[str] | None = None
    stuff: Sequence[str] | None = None
    layers: str | None = None
    leave_out: Sequence[str] = ()
    unlabelled: str | None = None


@dataclass(frozen=True)
class Labels:
    """Categories of the result, as in a COCO panoptic JSON, and what is needed to paint them, by dataset id.

    ``left_out``: categories whose pixels are void, and whether they would be things.
    """

    categories: list[dict[str, Any]]
    layers: dict[int, int] = field(default_factory=dict)
    unlabelled: int | None = None
    left_out: dict[int, bool] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def isthing(self) -> dict[int, bool]:
        """By dataset id."""
        return {c["id"]: bool(c["isthing"]) for c in self.categories}

    def name(self, category: int) -> str:
        """Name of a dataset id."""
        return next(str(c["name"]) for c in self.categories if c["id"] == category)

    def paint(self, regions: Sequence[Region], size: tuple[int, int]) -> Painted:
        """The map of an image; see :func:`.painting.paint`."""
        painted = paint(regions, size, {**self.isthing, **self.left_out}, self.layers, self.left_out)
        return self._fill_unlabelled(painted)

    def _fill_unlabelled(self, painted: Painted) -> Painted:
        """Give the unlabelled pixels of a map to their category, if there is one."""
        unlabelled = painted.panoptic == 0
        if painted.left_out is not None:
            unlabelled &= ~painted.left_out
        if self.unlabelled is None or not unlabelled.any():
            return painted
        same = [s for s in painted.segments if s["category_id"] == self.unlabelled]
        segment_id = same[0]["id"] if same else len(painted.segments) + 1
        filled = np.where(unlabelled, np.int32(segment_id), painted.panoptic)
        (x0, y0, x1, y1) = index_boxes(np.where(filled == segment_id, 1, 0), 1)[1].astype(int).tolist()
        row = {
            "id": segment_id,
            "category_id": self.unlabelled,
            "iscrowd": 0,
            "area": int(np.count_nonzero(filled == segment_id)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        segments = [row if s["id"] == segment_id else s for s in painted.segments] + ([] if same else [row])
        return replace(painted, panoptic=filled, segments=segments)


def choose_labels(source: Source, options: LabelOptions) -> Labels:
    """Decide what each category is; every decision is one of the result's ``lines``, to be printed.

    Raises:
        ValueError: a name that the source does not have, or one that is asked to be both thing and stuff.
    """
    names = [str(c["name"]) for c in source.categories]
    options = replace(options, leave_out=list(dict.fromkeys([*options.leave_out, *source.void])))
    for what in ("things", "stuff", "leave_out"):
        _check_known(getattr(options, what) or (), names, f"--{what.replace('_', '-')}", source)
    both = sorted(set(options.things or ()) & set(options.stuff or ()))
    if both:
        raise ValueError(f"--things and --stuff both name {', '.join(both)}.")
    every = [{**c, "isthing": int(_isthing(c, options, source.things_by_default))} for c in source.categories]
    categories = [row for row in every if row["name"] not in options.leave_out]
    left_out = {int(row["id"]): bool(row["isthing"]) for row in every if row["name"] in options.leave_out}
    unlabelled = _unlabelled(categories, options.unlabelled)
    if not categories:
        raise ValueError("No category is left.")
    layers = _layers(options.layers, every, source)
    return Labels(categories, layers, unlabelled, left_out, tuple(_lines(source, options, categories)))


def read_label_options(path: str) -> dict[str, Any]:
    """What a labels file says, by field of :class:`LabelOptions`.

    Raises:
        ValueError: another key, or a value of another kind.
    """
    values = read_yaml(path)
    known = {field.name for field in fields(LabelOptions)}
    if not isinstance(values, Mapping) or set(values) - known:
        raise ValueError(f"{path} may have the keys {', '.join(sorted(known))}.")
    return {key: _option(key, value, path) for key, value in values.items()}


def _option(key: str, value: Any, path: str) -> Any:
    """What a labels file says of a key: lists of names, or one text of layers."""
    is_list = isinstance(value, list) and all(isinstance(name, str | int) for name in value)
    if value is None or (isinstance(value, str) and key in ("layers", "unlabelled")):
        return value
    if is_list and key in ("things", "stuff", "leave_out"):
        return [str(name) for name in value]
    needed = (
        "'wall, road < car < person'" if key == "layers" else "a name" if key == "unlabelled" else "a list of names"
    )
    raise ValueError(f"{path}: {key} must be {needed}, got {value!r}.")


def _check_known(wanted: Collection[str], names: Sequence[str], option: str, source: Source) -> None:
    where = f" of {source.files[0]}" if source.files else ""
    for name in wanted:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            there_are = f"the categories{where} are {', '.join(names)}" if names else f"there are no categories{where}"
            raise ValueError(f"{option} names {name!r}, but {there_are}.{hint}")


def _isthing(category: Mapping[str, Any], options: LabelOptions, default: bool) -> bool:
    name = category["name"]
    if name in (options.things or ()):
        return True
    if name in (options.stuff or ()):
        return False
    if options.things is not None and options.stuff is None:
        return False
    if options.stuff is not None and options.things is None:
        return True
    return bool(category.get("isthing", default))


def _unlabelled(categories: list[dict[str, Any]], name: str | None) -> int | None:
    """Dataset id of the category of unlabelled pixels; added to the categories if it is new."""
    if name is None:
        return None
    for category in categories:
        if category["name"] == name:
            if category["isthing"]:
                raise ValueError(f"--unlabelled names {name!r}, which is a thing: unlabelled pixels can only be stuff.")
            return int(category["id"])
    new = max((c["id"] for c in categories), default=0) + 1
    categories.append({"id": new, "name": name, "isthing": 0})
    return int(new)


def _layers(text: str | None, categories: Sequence[Mapping[str, Any]], source: Source) -> dict[int, int]:
    if not text:
        return {}
    ids = {str(c["name"]): int(c["id"]) for c in categories}
    layers: dict[int, int] = {}
    for layer, names in enumerate(text.split("<"), start=1):
        members = [name.strip() for name in names.split(",") if name.strip()]
        _check_known(members, list(ids), "--layers", source)
        for name in members:
            if ids[name] in layers:
                raise ValueError(f"--layers names {name!r} twice.")
            layers[ids[name]] = layer
    return layers


def _lines(source: Source, options: LabelOptions, categories: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was decided, as a person reads it."""
    unknown = [c["name"] for c in source.categories if "isthing" not in c and c["name"] not in options.leave_out]
    asked = options.things is not None or options.stuff is not None
    why = "as you said" if asked else "as the source says"
    if unknown and not asked:
        kind = "things" if source.things_by_default else "stuff"
        why = f"the source does not say, so {kind} by default; --things or --stuff changes it"
    things = [c["name"] for c in categories if c["isthing"]]
    stuff = [c["name"] for c in categories if not c["isthing"]]
    lines = [f"Things: {', '.join(things) or 'none'}.", f"Stuff: {', '.join(stuff) or 'none'} ({why})."]
    order = re.sub(r"\s*<\s*", " < ", options.layers) if options.layers else None
    by_rule = "by z-order, then things on stuff, then small on large (--layers changes it)"
    lines.append(f"Layers, from the lowest: {order}." if order else f"Overlaps are decided {by_rule}.")
    lines.append(f"Unlabelled pixels are {options.unlabelled or 'void (--unlabelled NAME makes them stuff)'}.")
    if options.leave_out:
        lines.append(f"Left out, so void: {', '.join(options.leave_out)}.")
    return lines
