"""COCO instance annotations made from panoptic ones, so that AP can be measured where only panoptic ground truth
exists.
"""

import json
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util
from tqdm import tqdm

from ..panoptic_map import check_panoptic_map
from ..panoptic_png import read_panoptic_png

__all__ = ["instance_annotations", "instance_dataset"]


def instance_dataset(dataset_name: str, instances_json: str) -> str:
    """Give detectron2's `COCOEvaluator` something to measure AP against.

    Writes the thing segments of a panoptic dataset as COCO instance annotations, on the main process. Must be
    called from all processes.

    Args:
        dataset_name: a registered panoptic dataset without instance annotations of its own.
        instances_json: where they are written; an older file is replaced.

    Returns:
        Name of a ``MetadataCatalog`` entry with the same categories whose ``json_file`` is that file.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if comm.is_main_process():
        annotations = instance_annotations(metadata.panoptic_json, metadata.panoptic_root)
        with PathManager.open(instances_json, "w") as f:
            json.dump(annotations, f)
    comm.synchronize()
    derived = MetadataCatalog.get(f"{dataset_name}@{instances_json}")
    derived.set(
        json_file=instances_json,
        thing_classes=metadata.thing_classes,
        thing_dataset_id_to_contiguous_id=metadata.thing_dataset_id_to_contiguous_id,
    )
    return str(derived.name)


def instance_annotations(panoptic_json: str, panoptic_root: str) -> dict[str, Any]:
    """Thing segments of a COCO panoptic annotation file in COCO instance format (RLE masks), as panopticapi converts
    them.
    """
    with PathManager.open(panoptic_json) as f:
        panoptic = json.load(f)
    categories = [c for c in panoptic["categories"] if c["isthing"]]
    things = {c["id"] for c in categories}
    annotations: list[dict[str, Any]] = []
    for annotation in tqdm(panoptic["annotations"], desc="instance annotations from panoptic PNGs", unit="image"):
        path = f"{panoptic_root}/{annotation['file_name']}"
        ids = read_panoptic_png(path)
        check_panoptic_map(ids, annotation["segments_info"], path)
        for segment in annotation["segments_info"]:
            if segment["category_id"] in things:
                rle = mask_util.encode(np.asfortranarray(ids == segment["id"], dtype=np.uint8))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": annotation["image_id"],
                        "category_id": segment["category_id"],
                        "iscrowd": int(segment.get("iscrowd", 0)),
                        "area": int(mask_util.area(rle)),
                        "bbox": mask_util.toBbox(rle).tolist(),
                        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    }
                )
    return {"info": {}, "images": panoptic["images"], "annotations": annotations, "categories": categories}
