"""What can be wrong with a dataset: a table of kinds, and a counter of what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = ["KINDS", "Findings", "Kind"]

_EXAMPLES = 5


class Kind(NamedTuple):
    """A kind of finding.

    An error makes training or figures wrong, a warning makes them poor. ``remedy`` says what to do. What is ``fixable``
    has one right answer, which ``--fix`` writes.
    """

    is_error: bool
    what: str
    remedy: str
    fixable: bool = False


KINDS: Final[dict[str, Kind]] = {
    "json": Kind(True, "The JSON cannot be read", "Export or download it again."),
    "category": Kind(True, "Categories that are not COCO's", "Give each a unique id, a name and isthing 0 or 1."),
    "image row": Kind(True, "Entries of images that are not COCO's", "Mend these fields."),
    "annotation": Kind(True, "Annotations that are not COCO's", "Mend these fields."),
    "segment": Kind(True, "Segments that are not COCO's", "Mend these fields."),
    "written otherwise": Kind(
        False, "Fields that are right but written otherwise", "Numbers as numbers, flags as 0 or 1.", fixable=True
    ),
    "image twice": Kind(True, "Images that are listed more than once", "Keep one entry of each."),
    "annotation twice": Kind(True, "Images that are annotated more than once", "Keep one annotation of each."),
    "no such image": Kind(True, "Annotations of images that are not listed", "List the image or drop the annotation."),
    "not annotated": Kind(False, "Images without an annotation", "They are left out of training and evaluation."),
    "segment twice": Kind(True, "Segment ids that an image has more than once", "Give each segment an id of its own."),
    "unknown category": Kind(True, "Segments of categories that are not listed", "Add the category or mend the id."),
    "no things": Kind(
        False,
        "No category is a thing",
        "CVAT and datumaro write isthing 0 for every class: python -m panoptic_fpn_ext.data.convert panoptic … "
        "--things A,B mends it.",
    ),
    "no stuff": Kind(False, "No category is stuff", "Use Mask R-CNN, or name stuff: convert panoptic … --stuff A,B."),
    "same name": Kind(False, "Categories of the same name", "Rename them: figures by class cannot be told apart."),
    "unused category": Kind(False, "Categories without a segment", "A model cannot learn them from this dataset."),
    "only crowds": Kind(
        False,
        "Categories of things that have crowds only",
        "A model cannot learn them as things: export instance numbers, or make them stuff.",
    ),
    "image missing": Kind(True, "Images that do not exist", "Bring the files, or remove the entries."),
    "image broken": Kind(True, "Images that cannot be read", "Replace the files, or remove the entries."),
    "image kind": Kind(True, "Images of a kind that cannot be read", "Convert them as the message says."),
    "image size": Kind(
        True,
        "Images of another size than the JSON says",
        "Of other images? What EXIF data turn, JSON and PNG must show turned.",
    ),
    "png missing": Kind(True, "Panoptic PNGs that do not exist", "Bring the files, or remove the annotations."),
    "png broken": Kind(True, "Panoptic PNGs that are broken", "Write or download them again."),
    "png mode": Kind(True, "Panoptic PNGs that are not 8-bit RGB", "Write ids as R + 256 G + 65536 B."),
    "png size": Kind(True, "Panoptic PNGs of another size than their image", "Write them at the image's size."),
    "bgr": Kind(True, "Panoptic PNGs whose red and blue are exchanged", "Write ids as R + 256 G + 65536 B."),
    "id not listed": Kind(True, "Ids in PNGs that the JSON does not list", "List the segment, or make its pixels 0."),
    "no pixel": Kind(True, "Listed segments without a pixel", "Drop them from segments_info.", fixable=True),
    "area": Kind(
        True,
        "Areas that are not those of the PNG",
        "PNGs of other images? Else --fix: panopticapi trusts them.",
        fixable=True,
    ),
    "box": Kind(False, "Boxes that are not those of the PNG", "Other tools may read them.", fixable=True),
    "elsewhere": Kind(
        True,
        "Panoptic PNGs most of whose segments are not in their boxes",
        "PNGs of other images, or mirrored? If it is the boxes that are wrong, --fix.",
        fixable=True,
    ),
    "stuff twice": Kind(
        False, "Images with several segments of one stuff category", "Merge them: a model predicts one."
    ),
    "stuff crowd": Kind(False, "Crowds that are stuff", "iscrowd is for things.", fixable=True),
    "all void": Kind(False, "Images without a labelled pixel", "They teach nothing."),
    "tiny": Kind(False, "Things of fewer than 16 pixels", "A network at stride 4 hardly sees them."),
    "copies": Kind(False, "Images that look the same", "Keep copies in one part: they make figures too good."),
}
"""By the name that the machine-readable result has."""


@dataclass
class Findings:
    """Counts and first examples of what was found, by kind."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Count a finding; ``where`` is a sentence that names it."""
        assert kind in KINDS, kind
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(where)

    def update(self, other: Findings) -> None:
        """Count what another one has found."""
        self.counts.update(other.counts)
        for kind, found in other.examples.items():
            mine = self.examples.setdefault(kind, [])
            mine += found[: _EXAMPLES - len(mine)]

    def select(self, keep: Callable[[str], bool]) -> Findings:
        """Those of some kinds."""
        kinds = [kind for kind in self.counts if keep(kind)]
        return Findings(Counter({k: self.counts[k] for k in kinds}), {k: self.examples[k] for k in kinds})

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind].is_error)

    def kinds(self) -> list[str]:
        """What was found, errors first."""
        return sorted(self.counts, key=lambda kind: (not KINDS[kind].is_error, list(KINDS).index(kind)))

    def text(self) -> str:
        """For a person: each kind with its remedy and examples."""
        lines = []
        for kind in self.kinds():
            row = KINDS[kind]
            lines.append(f"{'ERROR' if row.is_error else 'warning'}: {row.what}: {self.counts[kind]}. {row.remedy}")
            lines += [f"    {example}" for example in self.examples[kind]]
        return "\n".join(lines) or "Nothing is wrong."

    def data(self) -> dict[str, Any]:
        """For a machine."""
        rows = {
            kind: {"count": count, "error": KINDS[kind].is_error, "examples": self.examples[kind]}
            for kind, count in self.counts.items()
        }
        return {"errors": self.errors, "findings": rows}
