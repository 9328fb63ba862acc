"""A tree in the format of the Cityscapes download, drawn by the street generator."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from panoptic_fpn_ext.cityscapes_labels import categories
from panoptic_fpn_ext.data.street.categories import (
    BUILDING,
    BUS,
    CAR,
    FENCE,
    PERSON,
    ROAD,
    SIDEWALK,
    SIGN,
    SKY,
    TERRAIN,
    VEGETATION,
)
from panoptic_fpn_ext.data.street.scene import StreetImage, draw_street

LABELS = {PERSON: 24, CAR: 26, BUS: 28, SIGN: 20, ROAD: 7, VEGETATION: 21, FENCE: 13, SKY: 23, SIDEWALK: 8}
LABELS |= {TERRAIN: 22, BUILDING: 11}
NAMES = {row["id"]: row["name"] for row in categories()} | {29: "caravan", 4: "static"}
THINGS = (24, 26, 28, 29)
VOID, CARAVAN = 4, 29
CITIES = {"train": ("aachen", "bochum"), "val": ("lindau",)}


def draw_cityscapes(root: Path, height: int = 64, width: int = 128, images_per_city: int = 3) -> Path:
    """Draw ``leftImg8bit`` and ``gtFine`` with ``train`` (two cities) and ``val`` (one) below ``root``; returns it.

    The first thing of every second image is a crowd where it can be one; a bus is sometimes a caravan, a label with
    instances that Cityscapes ignores.
    """
    for split, cities in CITIES.items():
        for number, city in enumerate(cities):
            for index in range(images_per_city):
                street = draw_street(7, number + 5 * (split == "val"), index, height, width)
                write_image(root, split, f"{city}_{index:06d}_{19 + index:06d}", street, with_crowd=index % 2 == 0)
    return root


def write_image(root: Path, split: str, image_id: str, street: StreetImage, with_crowd: bool) -> None:
    """Write the files of one image: ``leftImg8bit``, ``instanceIds``, ``labelIds`` and ``polygons``."""
    city = image_id.split("_")[0]
    instance_ids = _instance_ids(street, with_crowd)
    images, truth = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    images.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    label_ids = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)
    cv2.imwrite(str(images / f"{image_id}_leftImg8bit.png"), street.image[..., ::-1])
    cv2.imwrite(str(truth / f"{image_id}_gtFine_instanceIds.png"), instance_ids.astype(np.uint16))
    cv2.imwrite(str(truth / f"{image_id}_gtFine_labelIds.png"), label_ids.astype(np.uint8))
    height, width = instance_ids.shape
    content = {"imgHeight": height, "imgWidth": width, "objects": _polygons(instance_ids)}
    (truth / f"{image_id}_gtFine_polygons.json").write_text(json.dumps(content))


def _instance_ids(street: StreetImage, with_crowd: bool) -> np.ndarray:
    ids = np.full(street.ids.shape, VOID, np.int32)
    counts = dict.fromkeys(THINGS, 0)
    crowded = False
    for segment in street.segments:
        label = LABELS[segment["category_id"]]
        if label == LABELS[BUS] and segment["area"] % 3 == 0:
            label = CARAVAN
        value = label
        crowd = segment["iscrowd"] or (with_crowd and not crowded and label in THINGS)
        if label in THINGS and not crowd:
            value = 1000 * label + counts[label]
            counts[label] += 1
        crowded |= label in THINGS
        ids[street.ids == segment["id"]] = value
    return ids


def _polygons(instance_ids: np.ndarray) -> list[dict[str, Any]]:
    objects = []
    for value in np.unique(instance_ids).tolist():
        label = value if value < 1000 else value // 1000
        name = NAMES[label] + ("group" if label in THINGS and value < 1000 else "")
        mask = (instance_ids == value).astype(np.uint8)
        for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            objects.append({"label": name, "polygon": contour[:, 0].tolist()})
    return objects
