"""Datasets in COCO panoptic format: one JSON, one folder of images, one folder of panoptic PNGs, nothing else."""

import logging
import os
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..categories import THINGS_AS_OTHER, PanopticCategories, SemSegSpace
from ..coco_json import image_key, read_categories, read_panoptic
from .instances import instance_annotations
from .panoptic_catalog import COCO_PANOPTIC, class_metadata, describe_panoptic, register_panoptic

__all__ = [
    "check_files_exist",
    "describe_coco_panoptic",
    "load_coco_panoptic",
    "panoptic_dicts",
    "register_coco_panoptic",
]

logger = logging.getLogger(__name__)


def register_coco_panoptic(
    name: str,
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    *,
    instances_json: str | None = None,
    sem_seg_space: SemSegSpace = THINGS_AS_OTHER,
) -> None:
    """Register a dataset in COCO panoptic format with detectron2's catalogs.

    Categories, things and stuff, colours and id maps come from the JSON. Calling it again with the same arguments is
    harmless.

    Args:
        name: what ``DATASETS.TRAIN`` and ``DATASETS.TEST`` call it.
        image_root: folder of the images; their names are the JSON's ``images[].file_name``, any extension.
        panoptic_root: folder of the panoptic PNGs; their names are ``annotations[].file_name``.
        panoptic_json: the COCO panoptic annotation file.
        instances_json: COCO instance annotations (polygons, which may overlap) to train and measure AP on instead of
            the thing segments of the panoptic map, as the paper does on COCO. Images it does not list are left out.
        sem_seg_space: id space of the semantic head, see :mod:`panoptic_fpn_ext.categories`.

    Raises:
        FileNotFoundError: one of the files or folders does not exist.
        ValueError: the JSON is not in COCO panoptic format, or the name stands for other data already.
    """
    roots = {"image_root": str(image_root), "panoptic_root": str(panoptic_root), "panoptic_json": str(panoptic_json)}
    if instances_json is not None:
        roots["json_file"] = str(instances_json)
    for argument, path in roots.items():
        if not PathManager.exists(path):
            raise FileNotFoundError(f"Dataset {name!r}: {argument} {path} does not exist.")
    categories = PanopticCategories(read_categories(roots["panoptic_json"]), sem_seg_space)

    def load() -> list[dict[str, Any]]:
        """What the catalog calls."""
        dicts = load_coco_panoptic(
            roots["image_root"], roots["panoptic_root"], roots["panoptic_json"], categories, instances_json
        )
        if instances_json is not None:  # then there may be fewer images than in the panoptic JSON
            MetadataCatalog.get(name).set(image_ids=tuple(d["image_id"] for d in dicts))
        return dicts

    register_panoptic(name, load, {**class_metadata(categories, COCO_PANOPTIC), **roots})


def describe_coco_panoptic(
    name: str, categories: list[dict[str, Any]], *, sem_seg_space: SemSegSpace = THINGS_AS_OTHER
) -> None:
    """Make the categories of a dataset known without its files: enough to predict and to draw.

    :func:`register_coco_panoptic` may follow, or come first.

    Args:
        name: what ``DATASETS.TEST`` calls it.
        categories: the ``categories`` list of its JSON.
        sem_seg_space: as for :func:`register_coco_panoptic`.

    Raises:
        ValueError: the categories are not those of COCO's panoptic format, or the name stands for other ones already.
    """
    describe_panoptic(name, class_metadata(PanopticCategories(categories, sem_seg_space), COCO_PANOPTIC))


def load_coco_panoptic(
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    categories: PanopticCategories,
    instances_json: str | None = None,
) -> list[dict[str, Any]]:
    """Read a dataset into detectron2's standard dicts.

    Arguments are those of :func:`register_coco_panoptic`.

    Returns:
        One dict an image: ``file_name``, ``image_id``, ``height``, ``width``, ``pan_seg_file_name`` and
        ``segments_info``, a list of ``id``, ``category_id`` (contiguous for things, semantic for stuff),
        ``isthing``, ``iscrowd``, ``area`` (px) and ``bbox`` (XYWH, px). With ``instances_json`` also ``annotations``
        as detectron2's `load_coco_json` gives them.

    Raises:
        FileNotFoundError: images or PNGs are missing; the first ten are named.
        ValueError: a JSON is not in COCO's format, see :mod:`panoptic_fpn_ext.coco_json`.
    """
    dicts = panoptic_dicts(image_root, panoptic_root, panoptic_json, categories)
    if instances_json is not None:
        dicts = _with_polygons(dicts, instances_json, panoptic_json, categories)
    check_files_exist(dicts)
    return dicts


def panoptic_dicts(
    image_root: str, panoptic_root: str, panoptic_json: str, categories: PanopticCategories
) -> list[dict[str, Any]]:
    """As :func:`load_coco_panoptic`, from the JSON alone: no other file is looked for."""
    content = read_panoptic(panoptic_json)
    images = {image["id"]: image for image in content["images"]}
    annotations = content["annotations"]
    if len(annotations) < len(images):
        logger.warning(
            f"{panoptic_json} annotates {len(annotations)} of the {len(images)} images that it lists; the others are "
            "left out."
        )
    return [
        _dataset_dict(annotation, images[annotation["image_id"]], image_root, panoptic_root, categories)
        for annotation in annotations
    ]


def _dataset_dict(
    annotation: dict[str, Any],
    image: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    categories: PanopticCategories,
) -> dict[str, Any]:
    return {
        "file_name": os.path.join(image_root, image["file_name"]),
        "image_id": annotation["image_id"],
        "height": image["height"],
        "width": image["width"],
        "pan_seg_file_name": os.path.join(panoptic_root, annotation["file_name"]),
        "segments_info": [_segment_info(segment, categories) for segment in annotation["segments_info"]],
    }


def _segment_info(segment: dict[str, Any], categories: PanopticCategories) -> dict[str, Any]:
    return {
        "id": segment["id"],
        "category_id": categories.category_id(segment["category_id"]),
        "isthing": categories.isthing(segment["category_id"]),
        "iscrowd": segment["iscrowd"],
        **{key: segment[key] for key in ("area", "bbox") if key in segment},
    }


def _with_polygons(
    dicts: list[dict[str, Any]], instances_json: str, panoptic_json: str, categories: PanopticCategories
) -> list[dict[str, Any]]:
    """The same images with the polygons of an instance annotation file; those that it does not list are left out."""
    annotations = instance_annotations(instances_json, categories, panoptic_json)
    kept = [d for d in dicts if image_key(d["image_id"]) in annotations]
    if not kept:
        raise ValueError(f"{instances_json} lists none of the images of the panoptic annotation file.")
    if len(kept) < len(dicts):
        logger.warning(
            f"{instances_json} does not list {len(dicts) - len(kept)} of {len(dicts)} images; they are left out."
        )
    return [{**d, "annotations": annotations[image_key(d["image_id"])]} for d in kept]


def check_files_exist(dicts: list[dict[str, Any]]) -> None:
    """Raise ``FileNotFoundError`` if images or PNGs of standard dicts are missing; the first ten are named."""
    paths = [d[key] for d in dicts for key in ("file_name", "pan_seg_file_name")]
    missing = [path for path in paths if not PathManager.isfile(path)]
    if missing:
        shown = "\n  ".join(missing[:10])
        remedy = "Bring them, take their entries out of the JSON, or name the folders that have them"
        if any("\\" in path for path in missing):
            remedy = "Write / for \\ in the JSON"
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} files of the dataset do not exist. {remedy}:\n  {shown}"
        )
