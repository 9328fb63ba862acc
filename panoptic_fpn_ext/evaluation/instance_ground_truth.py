"""COCO instance annotations that AP is measured against: a dataset's own, or made from its panoptic ones."""

import json
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from pycocotools import mask as mask_util
from tqdm import tqdm

from ..coco_json import image_key, read_instances, read_panoptic
from ..panoptic_map import check_panoptic_map
from ..panoptic_png import read_panoptic_png
from ..unique_names import distinct_names

__all__ = ["instance_annotations", "instance_dataset", "own_annotations"]


def instance_dataset(dataset_name: str, instances_json: str) -> str:
    """Give detectron2's `COCOEvaluator` something to measure AP against.

    Writes its instance annotations, or else its thing segments, on the main process. They are those that training
    reads, with the ids of its images, since what reads this file takes fields as they are. Must be called from all
    processes.

    Args:
        dataset_name: a registered panoptic dataset.
        instances_json: where they are written; an older file is replaced.

    Returns:
        Name of a ``MetadataCatalog`` entry with the same categories, by distinct names, whose ``json_file`` is that
        file.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if comm.is_main_process():
        own = getattr(metadata, "json_file", None)
        if own is None:
            content = instance_annotations(metadata.panoptic_json, metadata.panoptic_root)
        else:
            content = own_annotations(own, getattr(metadata, "panoptic_json", None))
        # All of the model's, which the file need not list.
        things = metadata.thing_dataset_id_to_contiguous_id
        content["categories"] = [{"id": id_, "name": metadata.thing_classes[i]} for id_, i in things.items()]
        with PathManager.open(instances_json, "w", encoding="utf-8") as f:
            json.dump(content, f)
    comm.synchronize()
    ids = {index: id_ for id_, index in metadata.thing_dataset_id_to_contiguous_id.items()}
    derived = MetadataCatalog.get(f"{dataset_name}@{instances_json}")
    derived.set(
        json_file=instances_json,
        thing_classes=distinct_names(metadata.thing_classes, [ids[i] for i in range(len(metadata.thing_classes))]),
        thing_dataset_id_to_contiguous_id=metadata.thing_dataset_id_to_contiguous_id,
    )
    return str(derived.name)


def own_annotations(instances_json: str, panoptic_json: str | None) -> dict[str, Any]:
    """An instance annotation file as COCO's evaluation needs it.

    Images have the ids of the panoptic file, if there is one. Annotations are numbered from 1: the evaluation takes a
    match with annotation 0 for none.
    """
    content = read_instances(instances_json)
    images = read_panoptic(panoptic_json)["images"] if panoptic_json else content["images"]
    ids = {image_key(image["id"]): image["id"] for image in images}

    def id_of(image_id: Any) -> Any:
        return ids.get(image_key(image_id), image_id)

    return {
        "info": {},
        "images": [{**image, "id": id_of(image["id"])} for image in content["images"]],
        "annotations": [
            {**annotation, "id": number, "image_id": id_of(annotation["image_id"])}
            for number, annotation in enumerate(content["annotations"], start=1)
        ],
        "categories": content["categories"],
    }


def instance_annotations(panoptic_json: str, panoptic_root: str) -> dict[str, Any]:
    """Thing segments of a COCO panoptic annotation file in COCO instance format (RLE masks), as panopticapi converts
    them.
    """
    panoptic = read_panoptic(panoptic_json)
    categories = [c for c in panoptic["categories"] if c["isthing"]]
    things = {c["id"] for c in categories}
    annotations: list[dict[str, Any]] = []
    for annotation in tqdm(
        panoptic["annotations"], desc="instance annotations from panoptic PNGs", unit="image", disable=None
    ):
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
                        "iscrowd": segment["iscrowd"],
                        "area": int(mask_util.area(rle)),
                        "bbox": mask_util.toBbox(rle).tolist(),
                        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    }
                )
    return {"info": {}, "images": panoptic["images"], "annotations": annotations, "categories": categories}
