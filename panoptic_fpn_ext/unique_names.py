"""What the results of images are called, so that none overwrites another."""

import os

__all__ = ["UniqueNames"]


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
