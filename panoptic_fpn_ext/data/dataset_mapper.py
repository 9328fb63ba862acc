"""From a dataset dict to what the models take: reads, transforms and turns panoptic maps into training targets."""

import copy
import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances, PolygonMasks

from ..categories import PanopticCategories
from ..image_files import read_image, read_labels
from ..panoptic_map import check_panoptic_map, segment_index_map
from ..panoptic_png import read_panoptic_rgb, rgb2id
from ..structures import IGNORE_LABEL, PanopticTargets
from .color_distortion import ColorDistortion
from .nonempty import nonempty
from .panoptic_catalog import dataset_categories
from .planes import to_planes
from .targets import panoptic_targets, semantic_labels, targets_of_indices
from .vectorized_resize import vectorized

__all__ = ["PanopticDatasetMapper"]

_Map = tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer]]


class PanopticDatasetMapper:
    """Maps dicts of any panoptic dataset of detectron2 to training or inference inputs.

    Each target is taken from the best source a dict has. Instances: ``annotations`` (polygons or RLE) if there are
    any, else the panoptic map. Semantics: ``sem_seg_file_name`` (detectron2's ``*_separated`` sets) if there is one,
    else the panoptic map. Images and maps go through the same geometric transforms. Unlike detectron2's mapper,
    the crop comes after the resize (Panoptic FPN, section 5, Cityscapes), an image without instances has (empty)
    ``gt_masks`` too, and from a config training images are resized by
    :class:`~panoptic_fpn_ext.data.vectorized_resize.VectorizedResizeShortestEdge`.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        categories: PanopticCategories | None,
        augmentations: list[T.Augmentation],
        image_format: str = "BGR",
        instance_mask_format: str = "polygon",
        ignore_label: int | None = None,
        allow_errors: bool = False,
    ) -> None:
        """
        Args:
            is_train: whether to make targets.
            categories: id spaces of the dataset; needed only to make targets from panoptic maps.
            augmentations: applied in order to the image and, geometrically, to its targets. They may ask for
                ``sem_seg``, (h, w) semantic ids, the ignore label for void: uint8, or float32 where that has too few.
            image_format: ``"BGR"``, ``"RGB"`` or another one of :func:`~panoptic_fpn_ext.image_files.image_channels`.
            instance_mask_format: ``"polygon"`` or ``"bitmask"``, of masks that come from ``annotations``.
            ignore_label: semantic target of void, no semantic id: ``ignore_value`` of the semantic head. None is
                ``categories.ignore_label``.
            allow_errors: whether panoptic maps may disagree with their lists of segments: ids that are not listed are
                void, segments without a pixel teach nothing, areas are not compared.
        """
        self.is_train = is_train
        self.categories = categories
        self.augmentations = T.AugmentationList([nonempty(a) for a in augmentations])
        self._shows_sem_seg = any(
            "sem_seg" in inspect.signature(a.get_transform).parameters for a in self.augmentations.augs
        )
        self.image_format = image_format
        self.instance_mask_format = instance_mask_format
        self.allow_errors = allow_errors
        self.ignore_label = _ignore_label(categories) if ignore_label is None else ignore_label

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments from ``cfg.INPUT`` and the metadata of the first training (or test) dataset."""
        augmentations = utils.build_augmentation(cfg, is_train)
        if is_train:
            augmentations[1:1] = _crop_and_color(cfg)  # right after the resize
            augmentations = [vectorized(augmentation) for augmentation in augmentations]
        return {
            "is_train": is_train,
            "categories": dataset_categories(cfg.DATASETS.TRAIN[0]) if is_train else None,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "allow_errors": cfg.DATASETS.get("ALLOW_ERRORS", False),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            dataset_dict: detectron2's standard format; it is not changed.

        Returns:
            ``image`` (uint8 (3, h, w)), ``height``, ``width``, ``file_name``, ``image_id`` and, in training,
            ``sem_seg`` (int64 (h, w)) and ``instances`` (``gt_boxes``, ``gt_classes``, ``gt_masks``).

        Raises:
            FileNotFoundError, ValueError: a missing or broken file, or a panoptic map that does not agree with its
                image or its JSON. Each message names the file.
        """
        dataset_dict = copy.copy(dataset_dict)
        annotations = copy.deepcopy(dataset_dict.pop("annotations", None))  # transforming changes them
        segments_info = dataset_dict.pop("segments_info", None)
        if not self.is_train or segments_info is None:
            transforms = self._transform_image(dataset_dict)
            targets = None
        else:
            # Decoders let go of the interpreter: the map is read beside the image.
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(_read_map, dataset_dict, segments_info, self.allow_errors)
                transforms = self._transform_image(dataset_dict, segments_info, reading)
            targets = self._targets_from_map(*reading.result(), segments_info, transforms)
        if not self.is_train:
            return dataset_dict
        if "sem_seg_file_name" in dataset_dict:
            labels = transforms.apply_segmentation(self._read_sem_seg(dataset_dict.pop("sem_seg_file_name")))
            labels = labels.astype(np.int64)
            dataset_dict["sem_seg"] = torch.as_tensor(np.where(labels == IGNORE_LABEL, self.ignore_label, labels))
        elif targets is not None:
            dataset_dict["sem_seg"] = targets.sem_seg
        if annotations is not None:
            dataset_dict["instances"] = self._instances_from_annotations(
                annotations, transforms, tuple(dataset_dict["image"].shape[1:])
            )
        elif targets is not None:
            dataset_dict["instances"] = targets.instances
        return dataset_dict

    def _transform_image(
        self,
        dataset_dict: dict[str, Any],
        segments_info: list[dict[str, Any]] | None = None,
        reading: "Future[_Map] | None" = None,
    ) -> T.TransformList:
        """Read the image, put it into the dict as ``image``, and return what was done to it."""
        aug_input = T.AugInput(self._read_image(dataset_dict))
        if self._shows_sem_seg:
            aug_input.sem_seg = self._sem_seg_to_show(dataset_dict, segments_info, reading)
        transforms = self.augmentations(aug_input)
        if 0 in aug_input.image.shape:
            raise ValueError(
                f"Of image {dataset_dict['file_name']} the augmentations leave nothing: {aug_input.image.shape}."
            )
        dataset_dict["image"] = to_planes(aug_input.image)
        return transforms

    def _sem_seg_to_show(
        self,
        dataset_dict: dict[str, Any],
        segments_info: list[dict[str, Any]] | None,
        reading: "Future[_Map] | None",
    ) -> npt.NDArray[np.integer]:
        if "sem_seg_file_name" in dataset_dict:
            return self._read_sem_seg(dataset_dict["sem_seg_file_name"])
        if reading is None or segments_info is None:
            raise ValueError(
                f"Image {dataset_dict['file_name']} has no semantic ground truth, which INPUT.CROP."
                "SINGLE_CATEGORY_MAX_AREA below 1 looks at. Set it to 1.0, or train on a panoptic dataset."
            )
        assert self.categories is not None, "targets from panoptic maps need the dataset's categories"
        labels = semantic_labels(reading.result()[1], segments_info, self.categories, self.ignore_label)
        # Of wider types, detectron2's transforms resize float32 only; it holds all ids exactly.
        return labels if labels.dtype == np.uint8 else labels.astype(np.float32)

    def _read_sem_seg(self, path: str) -> npt.NDArray[np.integer]:
        """uint8 (h, w): labels of a semantic PNG as detectron2 prepares them, 255 for void."""
        if self.categories is not None and self.categories.num_sem_seg_classes > IGNORE_LABEL:
            raise ValueError(
                f"Semantic PNG {path} has 8 bits and 255 for void, too few for the "
                f"{self.categories.num_sem_seg_classes} semantic classes of the dataset. Register it with "
                "panoptic_fpn_ext.data.register_coco_panoptic, which needs no semantic PNGs."
            )
        labels = read_labels(path)
        if labels.dtype != np.uint8:
            raise ValueError(f"Semantic PNG {path} has label {labels.max()}, no class; void must be {IGNORE_LABEL}.")
        return labels

    def _read_image(self, dataset_dict: dict[str, Any]) -> npt.NDArray[np.uint8]:
        image = read_image(dataset_dict["file_name"], self.image_format)
        try:
            utils.check_image_size(dataset_dict, image)
        except utils.SizeMismatchError as error:
            if image.shape[1::-1] != (dataset_dict["height"], dataset_dict["width"]):
                raise
            raise ValueError(
                f"{error} If EXIF data turn the image, JSON and panoptic PNG must be of the turned "
                "image: turn them too, or take the orientation out of the EXIF data."
            ) from error
        return image

    def _targets_from_map(
        self,
        rgb: npt.NDArray[np.uint8],
        indices: npt.NDArray[np.integer],
        segments_info: list[dict[str, Any]],
        transforms: T.TransformList,
    ) -> PanopticTargets:
        assert self.categories is not None, "targets from panoptic maps need the dataset's categories"
        if indices.dtype == np.uint8 and _pads_with_void(transforms):
            # One 8-bit channel instead of three: transforms pick the same pixels, in a third of the time.
            indices = transforms.apply_segmentation(indices)
            return targets_of_indices(indices, segments_info, self.categories, self.ignore_label)
        # As 8-bit RGB, so that resizing picks the same pixels as for any image; ids are taken only afterwards.
        ids = rgb2id(transforms.apply_segmentation(rgb))
        return panoptic_targets(ids, segments_info, self.categories, self.ignore_label)

    def _instances_from_annotations(
        self, annotations: list[dict[str, Any]], transforms: T.TransformList, image_size: tuple[int, int]
    ) -> Instances:
        transformed = [
            utils.transform_instance_annotations(a, transforms, image_size)
            for a in annotations
            if not a.get("iscrowd", 0)
        ]
        instances = utils.annotations_to_instances(transformed, image_size, mask_format=self.instance_mask_format)
        if not instances.has("gt_masks"):  # detectron2 leaves the field out where there is no annotation
            instances.gt_masks = _no_masks(self.instance_mask_format, image_size)
        elif any(isinstance(t, T.CropTransform) for t in transforms.transforms):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)


def _no_masks(mask_format: str, image_size: tuple[int, int]) -> PolygonMasks | BitMasks:
    return PolygonMasks([]) if mask_format == "polygon" else BitMasks(torch.zeros(0, *image_size, dtype=torch.bool))


def _crop_and_color(cfg: CfgNode) -> list[T.Augmentation]:
    """The crop before the colours, so that these are changed where they are seen."""
    result: list[T.Augmentation] = []
    crop = cfg.INPUT.CROP
    if crop.ENABLED and crop.get("SINGLE_CATEGORY_MAX_AREA", 1.0) < 1:
        limit, ignored = crop.SINGLE_CATEGORY_MAX_AREA, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        result.append(T.RandomCrop_CategoryAreaConstraint(crop.TYPE, crop.SIZE, limit, ignored_category=ignored))
    elif crop.ENABLED:
        result.append(T.RandomCrop(crop.TYPE, crop.SIZE))
    if cfg.INPUT.get("COLOR_AUG_SSD", False):
        result.append(ColorDistortion(cfg.INPUT.FORMAT))
    return result


def _read_map(dataset_dict: dict[str, Any], segments_info: list[dict[str, Any]], allow_errors: bool) -> _Map:
    """The panoptic map, checked: as stored, and as an index map of its segments."""
    path = dataset_dict["pan_seg_file_name"]
    rgb = read_panoptic_rgb(path)
    height, width = rgb.shape[:2]
    size = (dataset_dict.get("height", height), dataset_dict.get("width", width))
    if (height, width) != size:
        raise ValueError(
            f"Panoptic map {path} is {width}×{height} px, but its image {dataset_dict['file_name']} is "
            f"{size[1]}×{size[0]} px (width × height)."
        )
    ids = rgb2id(rgb)
    if not allow_errors:
        check_panoptic_map(ids, segments_info, path, has_areas=True)
    return rgb, segment_index_map(ids, [s["id"] for s in segments_info])


def _pads_with_void(transforms: T.TransformList) -> bool:
    """Whether what transforms add is void in an index map: 0 and 255 are, as in the RGB image, other numbers would
    be segments.
    """
    return all(getattr(t, "seg_pad_value", 0) in (0, 255) for t in transforms.transforms)


def _ignore_label(categories: PanopticCategories | None) -> int:
    return IGNORE_LABEL if categories is None else categories.ignore_label
