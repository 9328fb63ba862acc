"""The only mapping between the three id spaces of a panoptic dataset.

* dataset id: ``categories[].id`` of the COCO panoptic JSON, any non-negative integer, with gaps;
* contiguous id: things by ascending dataset id, 0 … T-1, what the box and mask heads predict;
* semantic id: what the semantic head predicts, in one of two spaces (Panoptic FPN, section 4):
  ``"things_as_other"`` has 0 for every thing pixel and 1 … S for stuff, S + 1 in all;
  ``"all_classes"`` has 0 … T+S-1 for all categories; both by ascending dataset id.

So the order in which a JSON lists its categories does not matter, as in detectron2's ``load_coco_json``.

Contiguous and semantic ids overlap, so a predicted ``category_id`` means nothing without its ``isthing``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from .coco_json import category_rows
from .structures import IGNORE_LABEL, LARGE_IGNORE_LABEL, THINGS_SEM_SEG_ID

__all__ = ["ALL_CLASSES", "THINGS_AS_OTHER", "PanopticCategories", "SemSegSpace"]

SemSegSpace = Literal["things_as_other", "all_classes"]
THINGS_AS_OTHER: Final = "things_as_other"
ALL_CLASSES: Final = "all_classes"

_OTHER_COLOR = (82, 18, 128)  # what detectron2's datasets show "things" in


@dataclass(frozen=True)
class _Category:
    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]


def _default_color(dataset_id: int) -> tuple[int, int, int]:
    """A distinct colour for a category whose JSON names none: bits of its id spread over RGB, as in PASCAL VOC."""
    rgb = [0, 0, 0]
    bits = dataset_id or 0o77777777  # white, because black is what PASCAL VOC's background has
    for shift in range(7, -1, -1):
        for channel in range(3):
            rgb[channel] |= ((bits >> channel) & 1) << shift
        bits >>= 3
    return rgb[0], rgb[1], rgb[2]


def _category(row: Mapping[str, Any]) -> _Category:
    red, green, blue = row.get("color", _default_color(row["id"]))
    return _Category(row["id"], row["name"], bool(row["isthing"]), (red, green, blue))


class PanopticCategories:
    """Categories of one dataset, with every id map that training, inference and evaluation need."""

    def __init__(
        self,
        categories: Sequence[Mapping[str, Any]],
        sem_seg_space: SemSegSpace = THINGS_AS_OTHER,
        *,
        as_listed: bool = False,
    ) -> None:
        """
        Args:
            categories: the ``categories`` list of a COCO panoptic JSON (``id``, ``name``, ``isthing``, optional
                ``color``), in any order.
            sem_seg_space: id space of the semantic head, see the module's text.
            as_listed: number the categories in the order of the list instead of that of their ids: for id maps that
                somebody else made.

        Raises:
            ValueError: no category, a field that is missing or wrong, an id twice, more than 65534, an unknown space.
        """
        if sem_seg_space not in (THINGS_AS_OTHER, ALL_CLASSES):
            raise ValueError(f"sem_seg_space must be {THINGS_AS_OTHER!r} or {ALL_CLASSES!r}, got {sem_seg_space!r}.")
        parsed = [_category(row) for row in category_rows(categories)]
        self._categories = parsed if as_listed else sorted(parsed, key=lambda c: c.id)
        self.sem_seg_space: SemSegSpace = sem_seg_space
        if len(parsed) >= LARGE_IGNORE_LABEL:
            raise ValueError(f"There are {len(parsed)} categories; {LARGE_IGNORE_LABEL - 1} are the most that work.")
        self._things = [c for c in self._categories if c.isthing]
        self._stuff = [c for c in self._categories if not c.isthing]
        sem_seg = self._categories if sem_seg_space == ALL_CLASSES else self._stuff
        first = 0 if sem_seg_space == ALL_CLASSES else THINGS_SEM_SEG_ID + 1
        self._semantic_ids = {c.id: i for i, c in enumerate(sem_seg, start=first)}
        self._contiguous_ids = {c.id: i for i, c in enumerate(self._things)}
        self._by_id = {c.id: c for c in self._categories}
        self._dataset_ids = {(i, True): id_ for id_, i in self._contiguous_ids.items()}
        self._dataset_ids |= {(i, False): id_ for id_, i in self._semantic_ids.items() if not self._by_id[id_].isthing}

    @classmethod
    def from_metadata(cls, metadata: Any) -> "PanopticCategories":
        """Categories of a dataset in detectron2's ``MetadataCatalog``, ours or any of its panoptic ones.

        Args:
            metadata: has ``thing_classes``, ``stuff_classes``, ``thing_dataset_id_to_contiguous_id`` and
                ``stuff_dataset_id_to_contiguous_id``.

        Raises:
            ValueError: the metadata lack one of these.
        """
        keys = ["thing_classes", "stuff_classes"]
        keys += ["thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"]
        missing = [key for key in keys if not hasattr(metadata, key)]
        if missing:
            raise ValueError(
                f"Metadata of dataset {getattr(metadata, 'name', '?')!r} lack {missing}: a panoptic dataset has both "
                "thing and stuff categories. Register it with panoptic_fpn_ext.data.register_coco_panoptic."
            )
        things: dict[int, int] = metadata.thing_dataset_id_to_contiguous_id
        sem_seg: dict[int, int] = metadata.stuff_dataset_id_to_contiguous_id
        other = {i for i, c in sem_seg.items() if c == THINGS_SEM_SEG_ID and metadata.stuff_classes[c] == "things"}
        stuff = {i: c for i, c in sem_seg.items() if i not in things and i not in other}
        as_other = sorted(stuff.values()) == list(range(1, len(stuff) + 1))
        rows = [(c, _row(i, metadata, "thing", c)) for i, c in things.items()]
        rows += [(c if not as_other else len(things) + c, _row(i, metadata, "stuff", c)) for i, c in stuff.items()]
        if not as_other and set(things) <= set(sem_seg):
            rows = [(sem_seg[row["id"]], row) for _, row in rows]
        rows.sort(key=lambda item: item[0])
        result = cls([row for _, row in rows], THINGS_AS_OTHER if as_other else ALL_CLASSES, as_listed=True)
        if any(result.contiguous_id(i) != c for i, c in things.items()) or any(
            result.semantic_id(i) != c for i, c in stuff.items()
        ):
            raise ValueError(
                f"The id maps of dataset {getattr(metadata, 'name', '?')!r} are neither of the two spaces this "
                "package knows: things must be 0 … T-1 and stuff 1 … S, or both in one row, 0 … T+S-1; "
                f"got {things}, {sem_seg}."
            )
        return result

    # -- sizes and names ------------------------------------------------------------------------------------------

    @property
    def num_things(self) -> int:
        """T, what ``MODEL.ROI_HEADS.NUM_CLASSES`` must be."""
        return len(self._things)

    @property
    def num_stuff(self) -> int:
        """S, the number of stuff categories."""
        return len(self._stuff)

    @property
    def num_sem_seg_classes(self) -> int:
        """What ``MODEL.SEM_SEG_HEAD.NUM_CLASSES`` must be: S + 1 or T + S."""
        return len(self.sem_seg_classes)

    @property
    def ignore_label(self) -> int:
        """Semantic target of void, no semantic id: 255 for up to 255 semantic classes, else 65535. What
        ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE`` should be.
        """
        return IGNORE_LABEL if self.num_sem_seg_classes <= IGNORE_LABEL else LARGE_IGNORE_LABEL

    @property
    def sem_seg_classes(self) -> list[str]:
        """Names by semantic id."""
        if self.sem_seg_space == ALL_CLASSES:
            return [c.name for c in self._categories]
        return ["things", *(c.name for c in self._stuff)]

    @property
    def sem_seg_dataset_ids(self) -> list[int | None]:
        """Dataset ids by semantic id; None for "things"."""
        if self.sem_seg_space == ALL_CLASSES:
            return list(self.dataset_ids)
        return [None, *(c.id for c in self._stuff)]

    @property
    def thing_sem_seg_ids(self) -> list[int]:
        """Semantic ids that stand for things, which no stuff segment may have."""
        if self.sem_seg_space == THINGS_AS_OTHER:
            return [THINGS_SEM_SEG_ID]
        return [i for i, c in enumerate(self._categories) if c.isthing]

    @property
    def dataset_ids(self) -> list[int]:
        """All dataset ids, ascending unless the categories are numbered as listed."""
        return [c.id for c in self._categories]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The ``categories`` list of a COCO panoptic JSON, in the order of :attr:`dataset_ids`; a fresh copy."""
        return [
            {"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)} for c in self._categories
        ]

    def isthing(self, dataset_id: int) -> bool:
        """Whether a dataset id is countable; ``KeyError`` for an unknown one."""
        self.name(dataset_id)
        return dataset_id in self._contiguous_ids

    def name(self, dataset_id: int) -> str:
        """Name of a dataset id; ``KeyError`` for an unknown one."""
        if dataset_id not in self._by_id:
            raise KeyError(f"Category id {dataset_id} is not one of {self.dataset_ids}.")
        return self._by_id[dataset_id].name

    # -- id maps --------------------------------------------------------------------------------------------------

    def contiguous_id(self, dataset_id: int) -> int:
        """Dataset id of a thing → contiguous id in [0, T); ``KeyError`` for anything else."""
        if dataset_id not in self._contiguous_ids:
            raise KeyError(f"Category id {dataset_id} is no thing; things are {sorted(self._contiguous_ids)}.")
        return self._contiguous_ids[dataset_id]

    def semantic_id(self, dataset_id: int) -> int:
        """Dataset id → semantic id; ``KeyError`` for an unknown category."""
        if self.isthing(dataset_id) and self.sem_seg_space == THINGS_AS_OTHER:
            return THINGS_SEM_SEG_ID
        return self._semantic_ids[dataset_id]

    def category_id(self, dataset_id: int) -> int:
        """Dataset id → what a segment's ``category_id`` says: contiguous for things, semantic for stuff."""
        return self._contiguous_ids[dataset_id] if self.isthing(dataset_id) else self._semantic_ids[dataset_id]

    def dataset_id(self, category_id: int, isthing: bool) -> int:
        """A segment's ``category_id`` and ``isthing`` → dataset id; ``KeyError`` when there is no such category."""
        if (category_id, bool(isthing)) not in self._dataset_ids:
            known = sorted(i for i, thing in self._dataset_ids if thing == bool(isthing))
            raise KeyError(f"No {'thing' if isthing else 'stuff'} has category_id {category_id}; known are {known}.")
        return self._dataset_ids[category_id, bool(isthing)]

    def metadata(self) -> dict[str, Any]:
        """Entries for detectron2's ``MetadataCatalog``: the keys its evaluators and visualiser read."""
        sem_seg_ids = dict(self._semantic_ids)
        colors: list[tuple[int, int, int]] = [c.color for c in self._categories]
        if self.sem_seg_space == THINGS_AS_OTHER:
            other = 0 if 0 not in self.dataset_ids else -1  # detectron2's key for "things" is 0
            sem_seg_ids = {other: THINGS_SEM_SEG_ID, **sem_seg_ids}
            colors = [_OTHER_COLOR, *(c.color for c in self._stuff)]
        return {
            "thing_classes": [c.name for c in self._things],
            "thing_colors": [c.color for c in self._things],
            "thing_dataset_id_to_contiguous_id": dict(self._contiguous_ids),
            "stuff_classes": self.sem_seg_classes,
            "stuff_colors": colors,
            "stuff_dataset_id_to_contiguous_id": sem_seg_ids,
        }

    def __len__(self) -> int:
        return len(self._categories)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PanopticCategories):
            return NotImplemented
        return self._by_id == other._by_id and self.same_ids(other)

    def same_ids(self, other: "PanopticCategories") -> bool:
        """Whether both give the same contiguous and semantic ids to the same dataset ids, whatever their names."""
        mine, theirs = (
            (c._contiguous_ids, c._semantic_ids, c.sem_seg_space, c.thing_sem_seg_ids) for c in (self, other)
        )
        return mine == theirs

    def __repr__(self) -> str:
        return f"PanopticCategories({self.num_things} things, {self.num_stuff} stuff, {self.sem_seg_space})"


def _row(dataset_id: int, metadata: Any, kind: str, index: int) -> dict[str, Any]:
    names, colors = getattr(metadata, f"{kind}_classes"), getattr(metadata, f"{kind}_colors", None)
    row = {"id": dataset_id, "name": names[index], "isthing": kind == "thing"}
    return {**row, "color": colors[index]} if colors else row
