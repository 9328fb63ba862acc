"""Predict an image with an exported panoptic model: python predict.py model.onnx photo.jpg [overlay.png].

Needs numpy, Pillow and onnxruntime (.onnx) or openvino (.xml), nothing else.
"""

import json
import sys
from typing import Any

import numpy as np
from PIL import Image, ImageOps

NAMES = ("panoptic_seg", "segment_id", "category_id", "isthing", "score", "area", "box")
THRESHOLDS = {"instance_score_threshold": "f4", "overlap_threshold": "f8", "stuff_area_threshold": "i8"}


def load(path: str) -> tuple[Any, dict[str, Any]]:
    """A function of an image (uint8 (H, W, 3) in the file's channel order), and what the file says of itself."""
    if path.endswith(".xml"):
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would send usage statistics
        import openvino

        model = openvino.Core().read_model(path)
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        entries = model.get_rt_info(["panoptic_fpn_ext"]).astype(dict)
        description = decode({key: str(getattr(value, "value", value)) for key, value in entries.items()})
        thresholds = {name: np.array(description["thresholds"][name], dtype) for name, dtype in THRESHOLDS.items()}
        return lambda image: (lambda found: [found[n] for n in NAMES])(
            compiled({"image": image, **thresholds})
        ), description
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that thresholds are inputs, which they are to be
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entries = session.get_modelmeta().custom_metadata_map
    return lambda image: session.run(list(NAMES), {"image": image}), decode(entries)


def decode(entries: dict[str, str]) -> dict[str, Any]:
    """Each entry is JSON."""
    return {key: json.loads(value) for key, value in entries.items()}


def main(model: str, photo: str, overlay: str = "") -> None:
    """Print the segments of a photo and, on request, draw them over it."""
    predict, description = load(model)
    rgb = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))
    image = rgb[:, :, ::-1] if description["input_format"] == "BGR" else rgb
    panoptic_seg, ids, categories, _, scores, areas, boxes = predict(np.ascontiguousarray(image))
    rows = {row["id"]: row for row in description["categories"]}
    colors = np.zeros((len(ids) + 1, 3), dtype=np.uint8)
    for id_, category, score, area, box in zip(ids, categories, scores, areas, boxes, strict=True):
        row = rows[int(category)]
        colors[id_] = row["color"]
        place = f"  score {score:.2f}  box {box.round(1).tolist()}" if row["isthing"] else ""
        print(f"{id_:4d}  {row['name']}  {area} px{place}")  # noqa: T201
    if overlay:
        Image.fromarray(rgb // 2 + colors[panoptic_seg] // 2).save(overlay)


if __name__ == "__main__":
    main(*sys.argv[1:])
