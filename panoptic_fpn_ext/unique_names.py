"""What the results of images and the figures of categories are called, so that none overwrites another."""

import os
from collections import Counter
from collections.abc import Sequence

__all__ = ["UniqueNames", "distinct_names"]


def distinct_names(names: Sequence[str], ids: Sequence[int | None]) -> list[str]:
    """Names of categories for their figures: ``window`` twice becomes ``window (id 3)`` and ``window (id 7)``.

    Args:
        names: of the categories, in any order.
        ids: their dataset ids, all different; None for the one that is no category ("things") and keeps its name.

    Returns:
        The names, those that occur more than once with the id.
    """
    result = list(names)
    while shared := {name for name, times in Counter(result).items() if times > 1}:
        result = [
            f"{name} (id {id_})" if name in shared and id_ is not None else name
            for name, id_ in zip(result, ids, strict=True)
        ]
    return result


class UniqueNames:
    """Names of results: the input's stem, with ``_2``, ``_3`` … after the first where stems are the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, path: str) -> str:
        """A name that was not taken before: ``a/x.y.jpg`` → ``x.y``, ``b/x.y.png`` → ``x.y_2``.

        Upper and lower case count as the same, because file systems may not tell them apart.
        """
        stem = os.path.splitext(os.path.basename(path))[0]
        name, count = stem, 1
        while name.lower() in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name.lower())
        return name
