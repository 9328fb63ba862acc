"""An OpenVINO file in 8-bit integers: which layers, and what that costs in PQ.

NNCF observes the activations of calibration images and puts quantisers before the layers of the network; coordinates,
suppression and combiner stay in float32. Where PQ drops more than allowed, the layers that cost most stay float32 too.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from detectron2.data import DatasetCatalog

from ..evaluation import PQCounts, count_panoptic_quality
from ..image_files import read_image
from ..panoptic_png import read_panoptic_png
from .description import categories_of, dataset_ids
from .openvino_files import read_openvino
from .packages import needed
from .predictor import ExportedPredictor
from .runtimes import read_description, threshold_inputs

__all__ = ["Int8Choice", "choose_int8", "layer_groups", "write_int8"]

_LAYERS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"}
# What else may be quantised: sums of residuals and of pyramid levels, between layers of the backbone.
_BACKBONE = "/backbone/"
Image = npt.NDArray[np.uint8]


class Int8Choice(NamedTuple):
    """What :func:`choose_int8` found, PQ in percent: before, after, with all layers in int8, and by group of layers
    when all others are int8, those first that cost most; nothing of these where no group had to stay float32.
    """

    float_pq: float
    pq: float
    all_int8_pq: float
    float_groups: tuple[str, ...]
    pq_without: dict[str, float]


def choose_int8(
    source: Path,
    path: Path,
    dataset_name: str,
    *,
    num_images: int = 100,
    max_drop: float = 0.5,
    say: Callable[[str], None] = print,
) -> Int8Choice:
    """Write the int8 file of an OpenVINO one, with as many layers in int8 as the allowed loss of PQ permits.

    Args:
        source: ``.xml`` in float32, as :func:`~panoptic_fpn_ext.export.write_openvino` makes it.
        path: the result, ``.xml``.
        dataset_name: registered, with panoptic ground truth; not the one on which the result will be judged.
        num_images: so many of it, evenly spread, calibrate, and measure the loss.
        max_drop: points of PQ on these images.
        say: gets a line about each step.

    Raises:
        ImportError: nncf or openvino is not installed.
        ValueError: the dataset has no images, or categories that the file lacks.
    """
    records = DatasetCatalog.get(dataset_name)
    if not records:
        raise ValueError(f"{dataset_name} has no images to calibrate with.")
    records = records[:: max(1, len(records) // num_images)][:num_images]
    float_pq, num_things = _pq(source, records)
    # An image without detections says nothing of the mask head's activations, and spoils their average.
    calibrating = [record for record, count in zip(records, num_things, strict=True) if count] or records
    say(f"float32: PQ {float_pq:.2f} on {len(records)} images of {dataset_name}")

    def attempt(float_groups: Sequence[str], target: Path) -> float:
        images = (read_image(record["file_name"], "BGR") for record in calibrating)
        write_int8(source, target, images, len(calibrating), float_groups)
        return _pq(target, records)[0]

    pq = attempt((), path)
    say(f"int8: PQ {pq:.2f}")
    if float_pq - pq <= max_drop:
        return Int8Choice(float_pq, pq, pq, (), {})
    all_int8_pq, pq_without = pq, {}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for number, group in enumerate(groups := layer_groups(source), 1):
            pq_without[group] = attempt((group,), Path(scratch) / "model.xml")
            say(f"int8 but for {group} ({number} of {len(groups)}): PQ {pq_without[group]:.2f}")
    pq_without = dict(sorted(pq_without.items(), key=lambda item: -item[1]))
    order = list(pq_without)
    for count in range(1, len(order) + 1):
        pq = attempt(order[:count], path)
        say(f"int8 but for {', '.join(order[:count])}: PQ {pq:.2f}")
        if float_pq - pq <= max_drop:
            break
    return Int8Choice(float_pq, pq, all_int8_pq, tuple(order[:count]), pq_without)


def layer_groups(source: Path) -> dict[str, int]:
    """Groups of layers that may stay float32 together, and how many layers each has; in the file's order."""
    counts: dict[str, int] = {}
    for node in read_openvino(source).get_ordered_ops():
        if node.get_type_name() in _LAYERS:
            group = _group(node.get_friendly_name())
            counts[group] = counts.get(group, 0) + 1
    return counts


def write_int8(
    source: Path, path: Path, images: Iterable[Image], num_images: int, float_groups: Sequence[str] = ()
) -> None:
    """Quantise the layers of an OpenVINO file, per channel.

    Args:
        source, path: ``.xml`` each; the description goes along.
        images: uint8 (H, W, 3), BGR, that calibrate.
        num_images: how many.
        float_groups: of :func:`layer_groups`, that stay float32.
    """
    openvino, nncf = needed("openvino"), needed("nncf")
    description = read_description(source)
    thresholds = threshold_inputs(description["thresholds"])

    def inputs(image: Image) -> dict[str, npt.NDArray[Any]]:
        rgb = description["input_format"] == "RGB"
        return {"image": np.ascontiguousarray(image[:, :, ::-1] if rgb else image), **thresholds}

    model = read_openvino(source)
    ignored = [node.get_friendly_name() for node in model.get_ops() if _stays_float(node, float_groups)]
    quantise = partial(
        nncf.quantize,
        model,
        nncf.Dataset(images, inputs),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=num_images,
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        # CPUs without VNNI add two products in 16 bits, which weights of 8 bits overflow.
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )
    with ThreadPoolExecutor(1) as thread:  # NNCF begins many cores: see openvino_core
        quantised = thread.submit(quantise).result()
    _share_quantisers(quantised)
    openvino.save_model(quantised, str(path), compress_to_fp16=False)


def _share_quantisers(model: Any) -> None:
    """Let RoIAlign and layers in float32 see the same quantised maps as layers in 8 bits do.

    Then a convolution writes them in 8 bits itself. Otherwise it writes float32 and a quantiser of its own follows,
    which OpenVINO (2026.4, with AVX2, sizes not known) computes to zeros.
    """
    for quantiser in model.get_ordered_ops():
        if quantiser.get_type_name() == "FakeQuantize":
            for user in quantiser.input_value(0).get_target_inputs():
                if user.get_node().get_type_name() not in {"FakeQuantize", "ShapeOf", "Result"}:
                    user.replace_source_output(quantiser.output(0))
    model.validate_nodes_and_infer_types()


def _stays_float(node: Any, float_groups: Sequence[str]) -> bool:
    kind, name = node.get_type_name(), node.get_friendly_name()
    if kind in {"Constant", "Parameter", "Result"}:
        return False
    if kind in _LAYERS:
        return _group(name) in float_groups
    return not name.startswith(_BACKBONE) or _group(name) in float_groups


def _group(name: str) -> str:
    """``/backbone/bottom_up/res2/…`` → ``backbone/bottom_up``, ``/rpn_head/conv/…`` → ``rpn_head``."""
    parts = name.strip("/").split("/")
    return "/".join(parts[: 2 if name.startswith(_BACKBONE) else 1])


def _pq(path: Path, records: Sequence[Mapping[str, Any]]) -> tuple[float, list[int]]:
    """PQ in percent, and the number of things predicted in each image."""
    num_things = []
    predictor = ExportedPredictor(path)
    categories = categories_of(predictor.description)
    ids = dataset_ids(categories)
    counts = PQCounts.zero(categories)
    for record in records:
        panoptic_seg, segments = predictor(read_image(record["file_name"], "BGR"))["panoptic_seg"]
        num_things.append(sum(segment["isthing"] for segment in segments))
        truth = read_panoptic_png(record["pan_seg_file_name"])
        known = [_with_dataset_ids(rows, ids) for rows in (record["segments_info"], segments)]
        counts += count_panoptic_quality(truth, known[0], panoptic_seg.numpy(), known[1], categories)
    return 100 * float(counts.summarize()["All"]["pq"]), num_things


def _with_dataset_ids(
    segments: Iterable[Mapping[str, Any]], ids: Mapping[tuple[int, bool], int]
) -> list[dict[str, Any]]:
    return [{**segment, "category_id": ids[segment["category_id"], segment["isthing"]]} for segment in segments]
