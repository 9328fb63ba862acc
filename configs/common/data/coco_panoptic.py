"""COCO with stuff and things, as detectron2's ``*_separated`` sets have it."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from panoptic_fpn_ext.data import PanopticDatasetMapper, dataset_categories
from panoptic_fpn_ext.data.train_loader import TrainLoader
from panoptic_fpn_ext.data.vectorized_resize import VectorizedResizeShortestEdge
from panoptic_fpn_ext.engine import build_dataset_evaluator

dataloader = get_config("common/data/coco_panoptic_separated.py").dataloader
dataloader.train._target_ = TrainLoader
dataloader.train.mapper = L(PanopticDatasetMapper)(
    is_train=True,
    categories=L(dataset_categories)(name="${...dataset.names}"),
    augmentations=dataloader.train.mapper.augmentations,
    image_format="BGR",
    instance_mask_format="polygon",
)
dataloader.train.mapper.augmentations[0]._target_ = VectorizedResizeShortestEdge
dataloader.test.mapper = L(PanopticDatasetMapper)(
    is_train=False,
    categories=None,
    augmentations=dataloader.test.mapper.augmentations,
    image_format="${...train.mapper.image_format}",
)
dataloader.evaluator = L(build_dataset_evaluator)(
    dataset_name="${..test.dataset.names}",
    output_folder="${train.output_dir}/inference",
    outputs="${model.outputs}",
)
