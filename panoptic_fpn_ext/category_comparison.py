"""Do two lists of categories agree? What every place asks where two lists meet.

Lists agree by ``id``, ``name`` and ``isthing``; order and colours do not matter.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CategoryDifferences", "compare_categories", "refuse_different_categories"]

_MOST = 10  # categories that a message names of a kind

Row = Mapping[str, Any]
"""A category as COCO lists it; ``name`` and ``isthing`` are compared where both lists have them."""


@dataclass(frozen=True)
class CategoryDifferences:
    """What two lists do not have in common; ids ascend."""

    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]
    different: tuple[tuple[Row, Row], ...]
    """The same id with another name or kind."""

    @property
    def second_is_part(self) -> bool:
        """Whether all that the second list has is in the first."""
        return not self.only_second and not self.different

    def __bool__(self) -> bool:
        return bool(self.only_first or self.only_second or self.different)

    def describe(self, first: str, second: str) -> str:
        """A line for each kind of difference; ``first`` and ``second`` are what has the lists."""
        lines = [f"  only in {first}: {_some(map(_text, self.only_first))}"] if self.only_first else []
        lines += [f"  only in {second}: {_some(map(_text, self.only_second))}"] if self.only_second else []
        if self.different:
            pairs = (f"{_text(a)} is {_text(b, with_id=False)} there" for a, b in self.different)
            lines.append(f"  of {first}, in {second}: {_some(pairs)}")
        ids = {row.get("name"): row["id"] for row in self.only_second}
        moved = [f"{r['name']!r} {r['id']} and {ids[r['name']]}" for r in self.only_first if r.get("name") in ids]
        lines += [f"  the same name with another id: {_some(moved)}"] if moved else []
        return "\n".join(lines)


def compare_categories(first: Sequence[Row], second: Sequence[Row]) -> CategoryDifferences:
    """Compare two ``categories`` lists; each has an id once, order does not matter."""
    mine, theirs = ({row["id"]: row for row in sorted(rows, key=lambda row: row["id"])} for rows in (first, second))
    return CategoryDifferences(
        only_first=tuple(row for id_, row in mine.items() if id_ not in theirs),
        only_second=tuple(row for id_, row in theirs.items() if id_ not in mine),
        different=tuple((row, theirs[i]) for i, row in mine.items() if i in theirs and _differ(row, theirs[i])),
    )


def refuse_different_categories(
    first: Sequence[Row],
    first_name: str,
    second: Sequence[Row],
    second_name: str,
    *,
    remedy: str,
    may_be_part: bool = False,
    may_have_more: bool = False,
) -> CategoryDifferences:
    """Compare two lists that should agree.

    Args:
        first, second: ``categories`` lists.
        first_name, second_name: what has them, e.g. a file, for the message.
        remedy: what to do, a sentence.
        may_be_part: whether the second list may lack categories of the first.
        may_have_more: whether it may have categories that the first lacks.

    Returns:
        The differences that are left: none, or those that were allowed.

    Raises:
        ValueError: they differ; the message lists how.
    """
    found = compare_categories(first, second)
    forbidden = (found.only_first and not may_be_part) or (found.only_second and not may_have_more)
    if forbidden or found.different:
        if may_be_part and not found.only_second:  # what is allowed is not named, unless ids have moved
            found = replace(found, only_first=())
        raise ValueError(
            f"The categories of {first_name} and {second_name} differ:\n"
            f"{found.describe(first_name, second_name)}\n{remedy}"
        )
    return found


def _differ(first: Row, second: Row) -> bool:
    same_name = "name" not in first or "name" not in second or first["name"] == second["name"]
    same_kind = "isthing" not in first or "isthing" not in second or bool(first["isthing"]) == bool(second["isthing"])
    return not (same_name and same_kind)


def _text(row: Row, *, with_id: bool = True) -> str:
    kind = f" ({'thing' if row['isthing'] else 'stuff'})" if "isthing" in row else ""
    return (f"{row['id']} " if with_id else "") + repr(row.get("name", "without a name")) + kind


def _some(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:_MOST]) + (f", … ({len(texts)} in all)" if len(texts) > _MOST else "")
