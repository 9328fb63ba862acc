"""What is wrong with the data of an evaluation: counted in full, shown in part."""

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Problems"]

NUM_SHOWN = 10


@dataclass
class Problems:
    """``count`` cases, of which the first ten are kept with the position of their image (-1: of none)."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, text: str, position: int = -1) -> None:
        """Count one case; ``position`` is the image's in the ground truth's JSON."""
        self.count += 1
        if len(self.first) < NUM_SHOWN:
            self.first.append((position, text))

    def include(self, others: Iterable["Problems"]) -> None:
        """Count the cases of others, other ranks' say, too; those of the first images are kept."""
        for other in others:
            self.count += other.count
            self.first += other.first
        self.first = sorted(self.first)[:NUM_SHOWN]

    def raise_if_any(self) -> None:
        """Raise one ``ValueError`` that counts the cases and shows the first ten."""
        if not self.count:
            return
        lines = "".join(f"\n  - {text}" for _, text in self.first)
        shown = f" (the first {len(self.first)} are shown)" if self.count > len(self.first) else ""
        cases = "1 problem" if self.count == 1 else f"{self.count} problems"
        raise ValueError(f"Panoptic Quality needs sound data, found {cases}{shown}:{lines}")
