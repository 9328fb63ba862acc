"""Panoptic Quality while the model runs: a detectron2 evaluator that keeps numbers, not images."""

import logging
import os
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..coco_json import image_key
from .errors.analysis import PanopticErrors
from .errors.records import ErrorRecords, join_records
from .ground_truth import GroundTruth
from .model_ids import ModelIds, unlisted_categories
from .panoptic_quality import ImageCounts, PQCounts, compare_image, count_image
from .prediction_writer import PredictionWriter, write_json
from .problems import Problems
from .records import ImageRecords, fold_records, image_positions
from .report import class_table, detectron2_results, group_table, json_report, wrong_areas
from .segments import parse_segments
from .worker import BackgroundWorker

__all__ = ["EVALUATION_RECORD", "PanopticQualityEvaluator"]

EVALUATION_RECORD = "evaluation.json"
"""File beside the predictions that says what they were compared with."""

MAX_WAITING = 8
"""Images between the model and the worker: enough to even out hard images, 10 MB at 480×640."""

logger = logging.getLogger(__name__)


class _Prediction(NamedTuple):
    image_id: Hashable
    panoptic_seg: npt.NDArray[np.integer]
    segments_info: list[dict[str, Any]] | None


class _Refused(NamedTuple):
    image_id: Hashable
    error: Exception


@dataclass
class _State:
    """What one process knows of its images; all that travels between the processes."""

    records: ImageRecords = field(default_factory=ImageRecords)
    failed: "array[int]" = field(default_factory=lambda: array("q"))
    problems: Problems = field(default_factory=Problems)
    written: str | None = None
    errors: dict[str, Any] | None = None


class PanopticQualityEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ of a dataset in COCO's panoptic format, with the bits of panopticapi's single-core loop.

    The outputs are detectron2's: ``output["panoptic_seg"] = (map, segments_info)``, the map integers (H, W) on any
    device. ``category_id`` and ``isthing`` are the model's; a segment without ``isthing`` has a dataset id already.
    ``segments_info`` None (Panoptic-DeepLab) means labels ``category_id * label_divisor + instance``, -1 for void.

    ``process`` copies the map, since a model may use its buffers again, and leaves the rest to one thread. Everything
    that is wrong, also with an output or on another rank, is one ``ValueError`` of ``evaluate`` on all ranks.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        gt_cache_bytes: int = 0,
        png_decoder: str | None = None,
        explain: bool = False,
    ) -> None:
        """
        Args:
            dataset_name: its metadata have ``panoptic_json`` and ``panoptic_root``, as all panoptic sets of detectron2.
            output_dir: a local folder, shared by all ranks, for ``panoptic_quality.json``, :data:`EVALUATION_RECORD`
                and the predictions in COCO's format (``predictions.json``, ``predictions/``, PNGs called as the ground
                truth's); None writes nothing.
            gt_cache_bytes: memory for decoded ground truth (20 KB a COCO image) that later evaluations with this
                object use again; 0 for none.
            png_decoder: one of ``panoptic_png.png_decoders()``; None is the fastest.
            explain: also keep why points are lost: after ``evaluate``, ``errors`` on the main process.

        Raises:
            FileNotFoundError: the ground truth is not there.
            ValueError: the metadata name no ground truth, or its JSON is not in COCO panoptic format.
        """
        metadata = MetadataCatalog.get(dataset_name)
        missing = [key for key in ("panoptic_json", "panoptic_root") if not hasattr(metadata, key)]
        if missing:
            raise ValueError(
                f"Metadata of dataset {dataset_name!r} lack {missing}: where the panoptic ground truth is. Register "
                "it with panoptic_fpn_ext.data.register_coco_panoptic or detectron2's register_coco_panoptic."
            )
        self._metadata = metadata
        self._truth = GroundTruth(
            metadata.panoptic_json, metadata.panoptic_root, gt_cache_bytes, png_decoder, unlisted_categories(metadata)
        )
        self._ids = ModelIds(metadata)
        self._output_dir = output_dir
        self._worker = BackgroundWorker(self._work, self._explain, MAX_WAITING)
        self._writer = None if output_dir is None else PredictionWriter(output_dir, comm.get_rank())
        self._explains = explain
        self.errors: PanopticErrors | None = None
        self._begin()

    def _begin(self) -> None:
        self._state = _State()
        self._errors = ErrorRecords(self._truth) if self._explains else None

    @property
    def panoptic_json(self) -> str:
        """The ground truth."""
        return str(self._metadata.panoptic_json)

    @property
    def output_dir(self) -> str | None:
        """Where its files go."""
        return self._output_dir

    def reset(self) -> None:
        """Forget all images; the cache of the ground truth stays."""
        self._worker.finish()
        if self._writer is not None:
            self._writer.close()
        self._begin()

    def state_dict(self) -> dict[str, Any]:
        """What this process has gathered, to go on from after an interruption."""
        self._worker.finish()
        state = self._state
        problems = {"count": state.problems.count, "first": state.problems.first}
        found = {"records": state.records.state_dict(), "failed": list(state.failed), "problems": problems}
        if self._errors is not None:
            found["errors"] = self._errors.state_dict()
        return {**found, "lines": "" if self._writer is None else self._writer.state()}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Take over what an evaluator of the same dataset and folder had gathered, see :meth:`state_dict`."""
        self._state.records.add_state(state["records"])
        self._state.failed.extend(state["failed"])
        self._state.problems.include([Problems(**state["problems"])])
        if self._errors is not None:
            self._errors.add_state(state["errors"])
        if self._writer is not None:
            self._writer.add_state(state["lines"])

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Take over the outputs of inputs with ``image_id``; see the class. Raises nothing."""
        for input_, output in zip(inputs, outputs, strict=False):
            self._worker.submit(_take_over(input_, output))

    def evaluate(self) -> dict[str, Any] | None:
        """Results in percent on the main process, None on the others; to be called by all.

        Raises:
            ValueError: something is wrong with the data or the outputs; on all ranks.
            RuntimeError: the main process could not write its files, say; on all ranks.
        """
        self._worker.finish()
        if self._writer is not None:
            self._state.written = self._writer.close()
        self._state.errors = None if self._errors is None else self._errors.state_dict()
        states = comm.gather(self._state)
        results, error = self._conclude(states) if comm.is_main_process() else (None, None)
        error = comm.all_gather(error)[0]
        if error is not None:
            raise error
        return results

    def _conclude(self, states: list[_State]) -> tuple[dict[str, Any] | None, Exception | None]:
        try:
            return self._results(states), None
        except ValueError as error:
            return None, ValueError(str(error))
        except Exception as error:
            logger.exception("Panoptic Quality could not be computed.")
            return None, RuntimeError(f"Panoptic Quality could not be computed: {type(error).__name__}: {error}")

    def _results(self, states: list[_State]) -> dict[str, Any]:
        if self._writer is not None:
            self._writer.merge([s.written for s in states if s.written is not None], self._truth.category_list)
        problems = Problems()
        problems.include(state.problems for state in states)
        problems.include([self._find_absent_and_duplicate(states)])
        problems.raise_if_any()
        counts = fold_records([state.records for state in states], self._truth.categories)
        if self._explains:
            errors = join_records(self._truth, [s.errors for s in states if s.errors is not None], counts)
            notes = wrong_areas(counts.num_wrong_areas), self._truth.misfit
            self.errors = replace(errors, notes=tuple(filter(None, notes)))
        self._report(counts)
        return detectron2_results(counts)

    def _find_absent_and_duplicate(self, states: list[_State]) -> Problems:
        failed = [np.frombuffer(state.failed, np.int64) for state in states]
        positions = np.concatenate([image_positions([state.records for state in states]), *failed])
        times = np.bincount(positions, minlength=len(self._truth))
        problems = Problems()
        for position in np.flatnonzero((times > 1) | ((times == 0) & self._wanted())).tolist():
            what = "no prediction for it" if not times[position] else f"{times[position]} predictions for it"
            problems.add(f"image {self._truth.image_ids[position]!r}: {what}", position)
        return problems

    def _wanted(self) -> npt.NDArray[np.bool_]:
        """Which images of the ground truth the dataset has: all, unless its metadata have ``image_ids``."""
        wanted = set(map(image_key, getattr(self._metadata, "image_ids", self._truth.image_ids)))
        return np.array([image_key(image_id) in wanted for image_id in self._truth.image_ids], dtype=bool)

    def _report(self, counts: PQCounts) -> None:
        if text := wrong_areas(counts.num_wrong_areas):
            logger.warning(text)
        if logger.isEnabledFor(logging.INFO):
            logger.info("Panoptic Quality by category, in percent:\n\n" + class_table(counts) + "\n")
            logger.info("Panoptic Evaluation Results:\n\n" + group_table(counts) + "\n")
        if self._output_dir is not None:
            write_json(os.path.join(self._output_dir, "panoptic_quality.json"), json_report(counts))
            write_json(os.path.join(self._output_dir, EVALUATION_RECORD), self._record())

    def _record(self) -> dict[str, str]:
        """Name of the dataset, and absolute paths of its files."""
        keys = ("panoptic_json", "panoptic_root", "image_root")
        paths = {key: str(getattr(self._metadata, key)) for key in keys if getattr(self._metadata, key, None)}
        local = {key: path if "://" in path else os.path.abspath(path) for key, path in paths.items()}
        return {"dataset": str(self._metadata.name), **local}

    # -- in the worker's thread -----------------------------------------------------------------------------------

    def _work(self, prediction: _Prediction | _Refused) -> None:
        if isinstance(prediction, _Refused):
            raise ValueError(f"its output cannot be read ({type(prediction.error).__name__}: {prediction.error})")
        position = self._truth.position(prediction.image_id)
        if position is None:
            raise ValueError("the ground truth's JSON has no such image")
        ids, segments, problems = self._ids.to_dataset(prediction.panoptic_seg, prediction.segments_info)
        if self._writer is not None:
            self._writer.write(prediction.image_id, self._truth.png_names[position], ids, segments)
        if problems:
            raise ValueError(f"prediction: {'; '.join(problems)}")
        self._state.records.add(position, self._count(position, ids, segments))

    def _count(self, position: int, ids: npt.NDArray[np.integer], segments: list[dict[str, Any]]) -> ImageCounts:
        parsed, problems = parse_segments(segments, self._truth.category_index, predicted=True)
        if problems:
            raise ValueError(f"prediction: {'; '.join(problems)}")
        maps = self._truth.compare(position, ids, parsed)
        if self._errors is None:
            return count_image(*maps)
        compared = compare_image(*maps)
        self._errors.add(position, maps, compared, segments, self._truth.png_names[position])
        return compared.counts

    def _explain(self, prediction: _Prediction | _Refused, error: Exception) -> None:
        text = str(error)
        if not isinstance(error, (ValueError, FileNotFoundError)):
            logger.error(f"Image {prediction.image_id!r} could not be evaluated.", exc_info=error)
            text = f"{type(error).__name__}: {error}"
        position = self._truth.position(prediction.image_id)
        if position is not None:
            self._state.failed.append(position)
        self._state.problems.add(f"image {prediction.image_id!r}: {text}", -1 if position is None else position)


def _take_over(input_: Mapping[str, Any], output: Mapping[str, Any]) -> _Prediction | _Refused:
    image_id: Any = input_.get("image_id")
    image_id = image_id.item() if hasattr(image_id, "item") else image_id
    try:
        hash(input_["image_id"])
        panoptic_seg, segments_info = output["panoptic_seg"]
        return _Prediction(
            image_id=image_id,
            panoptic_seg=torch.as_tensor(panoptic_seg).detach().to("cpu", copy=True).numpy(),
            segments_info=None if segments_info is None else [dict(info) for info in segments_info],
        )
    except Exception as error:  # raised here, it would leave the other ranks waiting
        return _Refused(image_id if isinstance(image_id, Hashable) else None, error)
