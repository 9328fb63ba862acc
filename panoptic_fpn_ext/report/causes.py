"""How the page names, explains and colours the causes of lost points."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..evaluation.errors import COLUMNS

__all__ = ["CAUSE_TEXTS", "SHAPE", "Cause", "cause_rows"]


class Cause(NamedTuple):
    """Name, what it means in a sentence, ``#rrggbb``: hues that colour-blind people can tell (Okabe and Ito, Tol)."""

    name: str
    text: str
    color: str


CAUSE_TEXTS: dict[str, Cause] = {
    "missed": Cause("missed", "Nothing of its class was predicted there.", "#d55e00"),
    "split": Cause("split", "Predicted as several segments of its class.", "#cc79a7"),
    "merged": Cause("merged", "Predicted as one segment together with others of its class.", "#882255"),
    "wrong_class_things": Cause("wrong class, things", "The shape is right, the class is another thing.", "#0072b2"),
    "wrong_class_stuff": Cause("wrong class, stuff", "The region is right, the class is other stuff.", "#56b4e9"),
    "wrong_class_thing_stuff": Cause(
        "thing and stuff mixed up",
        "The shape is right; a thing is taken for stuff, or stuff for a thing.",
        "#332288",
    ),
    "boundary": Cause("poor shape", "Right class and place, but an IoU of 0.3 to 0.5 is no match.", "#009e73"),
    "duplicate": Cause("duplicate", "Predicted once more where a segment has its match already.", "#f0e442"),
    "hallucinated": Cause("hallucinated", "Predicted where nothing of its class is.", "#e69f00"),
    "below_score_threshold": Cause("below the score limit", "Detected, but its score was below the limit.", "#a0a0a0"),
    "below_overlap_threshold": Cause("hidden by others", "Detected, but others covered it.", "#7a7a7a"),
    "below_area_limit": Cause("below the area limit", "Predicted, but smaller than stuff may be.", "#5a5a5a"),
    "match_boundary": Cause("matched, edge", "What matches lose near edges of the ground truth.", "#8fc9b6"),
    "match_interior": Cause("matched, inside", "What matches lose away from edges.", "#b7a66a"),
}
SHAPE = "match_boundary"
"""Whose colour pixels have that a matched segment and its match do not share."""


def cause_rows() -> list[dict[str, Any]]:
    """``key``, ``name``, ``text`` and ``color`` of each of ``COLUMNS``, in that order."""
    unknown = Cause("", "", "#888888")
    rows = [(key, CAUSE_TEXTS.get(key, unknown)) for key in COLUMNS]
    return [{"key": key, **row._asdict(), "name": row.name or key.replace("_", " ")} for key, row in rows]
