"""Loading weights with clear words about files that are none and weights of another model."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from detectron2.utils.file_io import Detectron2Handler
from torch import nn

from ...category_comparison import refuse_different_categories
from ...modeling.separate_networks import SEMANTIC_BACKBONE, SeparatePanopticNetworks
from ...whole_files import whole_file
from .checkpoint_files import has_checkpoints, how_to_take_last, newest_sound, numbered_checkpoints, what_is_wrong
from .exported import exported_source
from .model_categories import (
    RECORD,
    CategorySource,
    categories_of_record,
    category_record,
    model_source,
    set_model_source,
)
from .model_files import checkpoint_path, is_exported
from .predictor_reuse import Reuse, without_foreign_predictors
from .weight_average import WeightAverage
from .weight_files import RefusedWeightsError, how_to_make, read_foreign_weights, read_weight_file

__all__ = ["PanopticCheckpointer", "recorded_source"]

logger = logging.getLogger(__name__)


class PanopticCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer; refuses weights that do not belong to the model instead of going on with random ones.

    A checkpoint that fits no parameter is always an error. With ``complete=True``, for evaluation and prediction, and
    when a run is resumed, so is one that leaves any parameter at its random initialisation. For training, partial
    weights (a pre-trained backbone, other classes) are usual: then a predictor is reused only where the checkpoint
    records the model's categories for it, and one line says what starts afresh.

    A model's categories are saved with its weights (see :mod:`~panoptic_fpn_ext.engine.checkpoints.model_categories`);
    a complete checkpoint gives them to the model, or must have the same.

    Files are written as a whole or not at all, read without running what they hold, and the newest sound one of
    ``save_dir`` is what a run is resumed from. With ``keep`` above 0, only so many of those with an iteration for a
    name stay, once a newer one was read back and found sound. An ``average`` is saved as the model.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        complete: bool = False,
        keep: int = 0,
        average: WeightAverage | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._complete, self._keep, self._path = complete, keep, ""
        self._weights = average.model_state if average is not None else self.model.state_dict

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the base class.

        Raises:
            FileNotFoundError: there is no such file.
            ConnectionError: a URL whose file cannot be downloaded.
            ValueError: no path where weights are needed, a file that is no checkpoint, or one of another architecture.
        """
        if self._complete and not path:
            raise ValueError(
                "MODEL.WEIGHTS is empty: set it (in LazyConfigs train.init_checkpoint) to the checkpoint to evaluate "
                "or predict with."
            )
        self._path = path = checkpoint_path(path)
        if is_exported(path):
            raise ValueError(
                f"{path} (MODEL.WEIGHTS) is an exported model, which has no parameters to load: train_net.py "
                "--eval-only evaluates it, and panoptic_fpn_ext.export.ExportedPredictor predicts with it."
            )
        if path:
            self._check_exists(path)
        result: dict[str, Any] = super().load(path, *args, **kwargs)
        return result

    def save(self, name: str, *, is_last: bool = True, **kwargs: Any) -> None:
        """As the base class, with the model's categories under :data:`RECORD`, and all of it or nothing; only with
        ``is_last`` it is the one that a run goes on from.

        Raises:
            OSError: the disk is full or not there; the checkpoints so far are as they were.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        source = model_source(self.model)
        content = {"model": self._weights(), **{k: v.state_dict() for k, v in self.checkpointables.items()}}
        content |= {RECORD: category_record(source.categories)} if source else {}
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        try:
            with whole_file(path, "wb") as f:
                torch.save({**content, **kwargs}, f)
            if is_last:
                self.tag_last_checkpoint(f"{name}.pth")
        except (OSError, RuntimeError) as error:  # of PyTorch's writer, when the file refuses to be written
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            raise OSError(
                f"Checkpoint {path} could not be written ({reason.strerror or reason}). Those written before are as "
                "they were: make room or bring the folder back, and go on with --resume."
            ) from error
        self._remove_old(path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """As the base class, all of it or nothing."""
        with whole_file(os.path.join(self.save_dir, "last_checkpoint")) as f:
            f.write(last_filename_basename)

    def _remove_old(self, newest: str) -> None:
        old = [n for n in numbered_checkpoints(self.save_dir)[self._keep :] if n != os.path.basename(newest)]
        if not self._keep or not old:
            return
        if problem := what_is_wrong(newest, self._needed()):
            logger.warning(f"{newest} was read back and is not sound ({problem}): older checkpoints stay.")
            return
        for name in old:
            Path(self.save_dir, name).unlink(missing_ok=True)

    def _needed(self) -> tuple[str, ...]:
        return ("model", *self.checkpointables)

    def has_checkpoint(self) -> bool:
        """Whether ``save_dir`` has a training to go on with, sound or not."""
        return has_checkpoints(self.save_dir)

    def get_checkpoint_file(self) -> str:
        """The newest sound checkpoint of ``save_dir``, the same in all processes; see :func:`newest_sound`."""
        found: str | ValueError = ""
        if comm.is_main_process():
            try:
                found = newest_sound(self.save_dir, self._needed())
            except ValueError as error:
                found = error
        found = comm.all_gather(found)[0]
        if isinstance(found, ValueError):
            raise found
        return found

    def read(self, path: str) -> dict[str, Any]:
        """What a checkpoint holds, without loading it into the model; ``"model"`` are the parameters by name.

        Raises:
            FileNotFoundError, ConnectionError, ValueError: as :meth:`load`.
        """
        self._path = path = checkpoint_path(path)
        self._check_exists(path)
        self._parsed_url_during_load: Any = urlparse(path)  # as the base class's load() sets it for _load_file()
        try:
            content: dict[str, Any] = self._load_file(self._local_path(path))
        finally:
            self._parsed_url_during_load = None
        return content

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As the base class; a run that is resumed needs a checkpoint of this very model."""
        self._complete = self._complete or (resume and self.has_checkpoint())
        result: dict[str, Any] = super().resume_or_load(path, resume=resume)
        return result

    def _check_exists(self, path: str) -> None:
        if not os.path.isfile(self._local_path(path)):
            what = f"Checkpoint {path} (MODEL.WEIGHTS, or the last one in OUTPUT_DIR) does not exist."
            raise FileNotFoundError(f"{what} {how_to_make(path)}".rstrip())

    def _local_path(self, path: str) -> str:
        try:
            return str(self.path_manager.get_local_path(urlparse(path)._replace(query="").geturl()))
        except OSError as error:
            if "://" not in path:
                raise
            url = path.replace(Detectron2Handler.PREFIX, Detectron2Handler.S3_DETECTRON2_PREFIX)
            raise ConnectionError(
                f"{path} could not be downloaded ({error}). Download {url} where the network allows it, bring the file "
                "here, and set MODEL.WEIGHTS (of a LazyConfig: train.init_checkpoint) to its path."
            ) from error

    def _load_file(self, filename: str) -> Any:
        try:
            loaded = self._read_format(filename)
        except RefusedWeightsError as error:
            raise ValueError(f"{self._path} (MODEL.WEIGHTS) is not read: {error}") from error
        except Exception as error:  # each unpickler has its own types
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            raise ValueError(f"{self._path} (MODEL.WEIGHTS) cannot be read as a checkpoint ({reason}).") from error
        if not isinstance(loaded.get("model"), Mapping):
            raise ValueError(f"{self._path} (MODEL.WEIGHTS) is no checkpoint: it holds no parameters by name.")
        return loaded

    def _read_format(self, filename: str) -> Any:
        """A file in one of the formats that detectron2 knows, in the form of ours."""
        if not filename.endswith((".pkl", ".pyth")):
            return super()._load_file(filename)  # which calls _torch_load()
        return read_foreign_weights(filename)

    def _torch_load(self, f: str) -> Any:
        return read_weight_file(f)

    def _load_model(self, checkpoint: Any) -> Any:
        # Called by Checkpointer.load once the file is read; the base class returns what did not fit.
        if checkpoint.get("matching_heuristics") and isinstance(self.model, SeparatePanopticNetworks):
            checkpoint = _matched_to_both_backbones(self.model, checkpoint)
        own, recorded = model_source(self.model), categories_of_record(checkpoint, self._path)
        if self._complete:
            self._take_over(own, recorded)
            reuse = None
        else:
            checkpoint, foreign = without_foreign_predictors(self.model, checkpoint, own, recorded)
            reuse = Reuse(self._path, foreign, recorded is not None)
        incompatible = super()._load_model(checkpoint)
        parameters = {name for name, _ in self.model.named_parameters()}
        misshapen = {name for name, *_ in incompatible.incorrect_shapes}
        unset = parameters & {*incompatible.missing_keys, *misshapen}
        if unset == parameters or (self._complete and unset):
            missing = [name for name in incompatible.missing_keys if name not in misshapen]
            shapes = [
                f"{name}: {theirs} in the file, {ours} in the model"
                for name, theirs, ours in incompatible.incorrect_shapes
            ]
            last = how_to_take_last(self.save_dir) if self._complete and self.save_dir else ""
            raise ValueError(
                f"Checkpoint {self._path} is of another architecture: it does not set {len(unset)} of the model's "
                f"{len(parameters)} parameters.\n"
                f"  missing in the file: {_some(missing)}\n  of another shape: {_some(shapes)}\n"
                f"  unknown to the model: {_some(incompatible.unexpected_keys)}\n"
                "Use the config that the checkpoint was trained with (--config-file; MODEL.ROI_HEADS.NUM_CLASSES and "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES shape the last layers), or set MODEL.WEIGHTS to another file; "
                "for a run that is resumed, set OUTPUT_DIR to another folder."
                + (f" {last}" if last and self._path not in last else "")
            )
        if reuse is not None:
            logger.info(reuse.describe(self.model, unset, misshapen))
        return incompatible

    def _take_over(self, own: CategorySource | None, recorded: CategorySource | None) -> None:
        """Give the model the checkpoint's categories, or make sure that it has them."""
        if recorded is None:
            logger.info(f"{self._path} records no categories: they are taken to be those of the dataset, by id.")
        elif own is None:
            set_model_source(self.model, recorded)
        else:
            remedy = (
                "A run goes on with the categories that it began with: set DATASETS.TRAIN (of a LazyConfig "
                "dataloader.train.dataset.names) to the datasets of then, or the output to another folder."
            )
            rows = (recorded.categories.rows, recorded.name, own.categories.rows, own.name)
            refuse_different_categories(*rows, remedy=remedy)
            if not recorded.categories.same_ids(own.categories):
                raise ValueError(f"{recorded.name} and {own.name} number the same categories differently. {remedy}")


def recorded_source(path: str) -> CategorySource | None:
    """The categories that a checkpoint or an exported model records, None where it records none or is not there.

    Args:
        path: what ``MODEL.WEIGHTS`` says. Files of other code bases (``.pkl``) are not read.

    Raises:
        ConnectionError, ValueError: as :meth:`PanopticCheckpointer.load`.
    """
    path = checkpoint_path(path)
    if is_exported(path) and os.path.isfile(path):
        return exported_source(path)
    if not path or not path.endswith(".pth") or ("://" not in path and not os.path.isfile(path)):
        return None
    return categories_of_record(PanopticCheckpointer(nn.Module()).read(path), path)


def _matched_to_both_backbones(model: nn.Module, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A backbone's weights, as from ImageNet, for two backbones; detectron2's heuristics use no weight twice."""
    one_backbone = {k: v for k, v in model.state_dict().items() if not k.startswith(SEMANTIC_BACKBONE)}
    is_caffe2 = checkpoint.get("__author__") == "Caffe2"
    weights = align_and_update_state_dicts(one_backbone, checkpoint["model"], c2_conversion=is_caffe2)
    weights |= {f"semantic_{k}": v for k, v in weights.items() if k.startswith("backbone.")}
    return {**checkpoint, "model": weights, "matching_heuristics": False}


def _some(names: Any, most: int = 5) -> str:
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more if names else "none"
