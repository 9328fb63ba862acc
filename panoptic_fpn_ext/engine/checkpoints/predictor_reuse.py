"""Fine-tuning: which layers of a checkpoint go on learning, and which start afresh because their classes are others."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from ...categories import PanopticCategories
from .model_categories import CategorySource

__all__ = ["Reuse", "without_foreign_predictors"]

_MOST = 5  # names of classes in a message


class _Part(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    classes: str = ""
    """What its rows stand for, if for classes: ``"things"`` or ``"semantic classes"``."""
    rows_per_class: int = 1


def _part(name: str, pattern: str, classes: str = "", rows_per_class: int = 1) -> _Part:
    return _Part(name, re.compile(pattern), classes, rows_per_class)


# Of detectron2's networks, by the names of their parameters; the first that matches counts.
_PARTS = (
    _part("box classifier", r"roi_heads\.box_predictor(\.\d+)?\.cls_score\.", "things"),
    _part("box regression", r"roi_heads\.box_predictor(\.\d+)?\.bbox_pred\.", "things", 4),
    _part("mask predictor", r"roi_heads\.mask_head\.predictor\.", "things"),
    _part("semantic predictor", r"sem_seg_head\.predictor\.", "semantic classes"),
    _part("backbone", r"backbone\.(?!fpn_|top_block)"),
    _part("pyramid", r"backbone\."),
    _part("second backbone", r"semantic_backbone\.(?!fpn_|top_block)"),
    _part("second pyramid", r"semantic_backbone\."),
    _part("RPN", r"proposal_generator\."),
    _part("box head", r"roi_heads\.box_"),
    _part("mask head", r"roi_heads\.mask_head\."),
    _part("semantic head", r"sem_seg_head\."),
    _part("the rest", r""),
)


def _part_of(parameter: str) -> _Part:
    return next(part for part in _PARTS if part.pattern.match(parameter))


def without_foreign_predictors(
    model: nn.Module, checkpoint: Mapping[str, Any], own: CategorySource | None, recorded: CategorySource | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Leave out of a checkpoint the predictors whose classes are not the model's.

    Args:
        model: with its parameters as initialised.
        checkpoint: ``"model"`` are the parameters by name.
        own, recorded: the model's categories and the checkpoint's, None where unknown: then nothing is left out, and
            shapes decide.

    Returns:
        The checkpoint, and for each part that is left out the reason.
    """
    if own is None or recorded is None:
        return dict(checkpoint), {}
    reasons, kept = {}, dict(checkpoint["model"])
    for name, value in model.named_parameters():
        part = _part_of(name)
        theirs, ours = (_classes(source.categories, part.classes) for source in (recorded, own))
        is_agnostic = part.classes == "things" and len(ours) > 1 and value.shape[0] == part.rows_per_class
        if theirs != ours and not is_agnostic and kept.pop(name, None) is not None:
            reasons[part.name] = f"{part.classes} there: {_some(theirs)}; here: {_some(ours)}"
    return {**checkpoint, "model": kept}, reasons


def _classes(categories: PanopticCategories, which: str) -> list[str]:
    """Names by the rows of a predictor; nothing for other parts."""
    if which == "things":
        return [row["name"] for row in categories.rows if row["isthing"]]
    return categories.sem_seg_classes if which else []


@dataclass(frozen=True)
class Reuse:
    """What became of a checkpoint's weights in a model that is to learn on."""

    path: str
    foreign: Mapping[str, str]
    """Parts that were left out, each with the reason."""
    knows_categories: bool

    def describe(self, model: nn.Module, unset: set[str], misshapen: set[str]) -> str:
        """One line.

        Args:
            model: any of detectron2's; parts that it has are named.
            unset: parameters that the checkpoint did not set.
            misshapen: those of them that it has in another shape.
        """
        in_order = sorted(_PARTS, key=lambda part: bool(part.classes))  # predictors last, as in the networks
        parts: dict[str, list[str]] = {part.name: [] for part in in_order}
        for name, _ in model.named_parameters():
            parts[_part_of(name).name].append(name)
        parts = {part: names for part, names in parts.items() if names}
        reused = [part for part, names in parts.items() if not unset.intersection(names)]
        reasons: dict[str, list[str]] = {}
        for part in (part for part in parts if part not in reused):
            reasons.setdefault(self._reason(part, parts[part], unset, misshapen), []).append(part)
        text = f"Weights reused from {self.path}: {', '.join(reused) or 'parts only'}."
        afresh = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())
        text += f" Started afresh: {afresh}." if afresh else ""
        predictors = {part.name for part in _PARTS if part.classes}
        if not self.knows_categories and predictors.intersection(reused):
            text += " The file records no categories, so that shapes alone decided about the predictors."
        return text

    def _reason(self, part: str, names: list[str], unset: set[str], misshapen: set[str]) -> str:
        if part in self.foreign:
            return self.foreign[part]
        if misshapen.intersection(names):
            return "of another shape in the file"
        return "not in the file" if unset.issuperset(names) else "in part not in the file"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST]) + (f", … ({len(names)} in all)" if len(names) > _MOST else "") or "none"
