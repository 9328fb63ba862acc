"""COCO instance annotations as detectron2's training takes them."""

import logging
from typing import Any

from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from ..categories import PanopticCategories
from ..category_comparison import refuse_different_categories
from ..coco_json import ids_shown, image_key, read_instances

__all__ = ["instance_annotations"]

logger = logging.getLogger(__name__)


def instance_annotations(
    instances_json: str, categories: PanopticCategories, panoptic_json: str = "the panoptic JSON"
) -> dict[str, list[dict[str, Any]]]:
    """Annotations of each image by :func:`~panoptic_fpn_ext.coco_json.image_key`, as detectron2's `load_coco_json`
    gives them, with contiguous ids.

    As there, polygons of fewer than three points are left out, and annotations of nothing else with a warning.

    Args:
        instances_json: a COCO instance annotation file.
        categories: of the panoptic dataset.
        panoptic_json: what that is called in messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not in that format, annotates a category that is no thing of the dataset, or calls one
            otherwise.
    """
    content = read_instances(instances_json)
    thing_rows = [row for row in categories.rows if row["isthing"]]
    refuse_different_categories(
        thing_rows,
        panoptic_json,
        content["categories"],
        instances_json,
        remedy="Give things the same names in both files.",
        may_be_part=True,
        may_have_more=True,  # as long as no annotation has them
    )
    things = {row["id"] for row in thing_rows}
    result: dict[str, list[dict[str, Any]]] = {image_key(image["id"]): [] for image in content["images"]}
    num_left_out = 0
    for annotation in content["annotations"]:
        if annotation["category_id"] not in things:
            raise ValueError(
                f"{instances_json}: an annotation of image {annotation['image_id']!r} has category "
                f"{annotation['category_id']}, which is no thing of {panoptic_json}; things are {ids_shown(things)}."
            )
        segmentation = _valid_segmentation(annotation["segmentation"])
        if segmentation:
            row = _annotation(annotation, segmentation, categories.contiguous_id(annotation["category_id"]))
            result[image_key(annotation["image_id"])].append(row)
        else:
            num_left_out += 1
    if num_left_out:
        logger.warning(f"{instances_json}: {num_left_out} annotations without a polygon of 3 points are left out.")
    return result


def _valid_segmentation(segmentation: Any) -> Any:
    """Polygons of three points or more, or compressed RLE."""
    if isinstance(segmentation, list):
        return [polygon for polygon in segmentation if len(polygon) % 2 == 0 and len(polygon) >= 6]
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _annotation(annotation: dict[str, Any], segmentation: Any, category_id: int) -> dict[str, Any]:
    row = {"iscrowd": annotation["iscrowd"], "bbox": annotation["bbox"], "category_id": category_id}
    if keypoints := annotation.get("keypoints"):
        # Pixel indices become coordinates; every third number is a visibility.
        row["keypoints"] = [value if index % 3 == 2 else value + 0.5 for index, value in enumerate(keypoints)]
    return {**row, "segmentation": segmentation, "bbox_mode": BoxMode.XYWH_ABS}
