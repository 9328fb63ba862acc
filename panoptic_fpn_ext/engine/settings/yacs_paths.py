"""Where a LazyConfig has what detectron2's yacs keys name."""

from typing import Final

import detectron2.modeling as modeling
from fvcore.common.registry import Registry

__all__ = ["BOTTOM_UP", "CLASSES", "OTHER_PATHS", "PATHS", "ROI_HEADS", "TRAIN_AUGMENTATIONS"]

TRAIN_AUGMENTATIONS, TEST_AUGMENTATIONS = (
    "dataloader.train.mapper.augmentations.*",
    "dataloader.test.mapper.augmentations.*",
)
_RPN, ROI_HEADS, _HEAD = "model.proposal_generator", "model.roi_heads", "model.sem_seg_head"
BOTTOM_UP = "model.backbone.bottom_up"

PATHS: Final[dict[str, str]] = {
    "DATALOADER.NUM_WORKERS": "dataloader.train.num_workers",
    "DATASETS.ALLOW_ERRORS": "dataloader.train.mapper.allow_errors",
    "DATASETS.CHECKED_IMAGES": "train.checked_images",
    "DATASETS.SEM_SEG_SPACE": "train.sem_seg_space",
    "INPUT.CROP.SIZE": f"{TRAIN_AUGMENTATIONS}.crop_size",
    "INPUT.CROP.TYPE": f"{TRAIN_AUGMENTATIONS}.crop_type",
    "INPUT.FORMAT": "dataloader.train.mapper.image_format",
    "INPUT.MASK_FORMAT": "dataloader.train.mapper.instance_mask_format",
    "INPUT.MAX_SIZE_TEST": f"{TEST_AUGMENTATIONS}.max_size",
    "INPUT.MAX_SIZE_TRAIN": f"{TRAIN_AUGMENTATIONS}.max_size",
    "INPUT.MIN_SIZE_TEST": f"{TEST_AUGMENTATIONS}.short_edge_length",
    "INPUT.MIN_SIZE_TRAIN": f"{TRAIN_AUGMENTATIONS}.short_edge_length",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": f"{TRAIN_AUGMENTATIONS}.sample_style",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": f"{_RPN}.anchor_generator.aspect_ratios",
    "MODEL.ANCHOR_GENERATOR.SIZES": f"{_RPN}.anchor_generator.sizes",
    "MODEL.BACKBONE.FREEZE_AT": f"{BOTTOM_UP}.freeze_at",
    "MODEL.EFFICIENTNET_LITE.DROP_PATH_RATE": f"{BOTTOM_UP}.drop_path_rate",
    "MODEL.FPN.FUSE_TYPE": "model.backbone.fuse_type",
    "MODEL.FPN.IN_FEATURES": "model.backbone.in_features",
    "MODEL.FPN.NORM": "model.backbone.norm",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": "model.combiner.instance_score_threshold",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": "model.combiner.overlap_threshold",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": "model.combiner.stuff_area_threshold",
    "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": "model.instance_loss_weight",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": f"{_RPN}.min_box_size",
    "MODEL.RESNETS.DEPTH": f"{BOTTOM_UP}.stages.depth",
    "MODEL.RESNETS.NORM": f"{BOTTOM_UP}.stages.norm",
    "MODEL.RESNETS.OUT_FEATURES": f"{BOTTOM_UP}.out_features",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": f"{ROI_HEADS}.box_predictor.box_reg_loss_type",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": f"{ROI_HEADS}.box_predictors.-1.cls_agnostic_bbox_reg",
    "MODEL.ROI_BOX_HEAD.NORM": f"{ROI_HEADS}.box_head.conv_norm",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": f"{ROI_HEADS}.box_pooler.pooler_type",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": f"{ROI_HEADS}.box_predictor.use_fed_loss",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": f"{ROI_HEADS}.batch_size_per_image",
    "MODEL.ROI_HEADS.IN_FEATURES": f"{ROI_HEADS}.box_in_features",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": f"{ROI_HEADS}.box_predictor.test_nms_thresh",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": f"{ROI_HEADS}.positive_fraction",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": f"{ROI_HEADS}.box_predictor.test_score_thresh",
    "MODEL.ROI_MASK_HEAD.NORM": f"{ROI_HEADS}.mask_head.conv_norm",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": f"{ROI_HEADS}.mask_pooler.pooler_type",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": f"{_RPN}.batch_size_per_image",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": f"{_RPN}.box_reg_loss_type",
    "MODEL.RPN.IN_FEATURES": f"{_RPN}.in_features",
    "MODEL.RPN.LOSS_WEIGHT": f"{_RPN}.loss_weight",
    "MODEL.RPN.NMS_THRESH": f"{_RPN}.nms_thresh",
    "MODEL.RPN.POSITIVE_FRACTION": f"{_RPN}.positive_fraction",
    "MODEL.RPN.POST_NMS_TOPK_TEST": f"{_RPN}.post_nms_topk.1",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": f"{_RPN}.pre_nms_topk.1",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": f"{_HEAD}.common_stride",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": f"{_HEAD}.ignore_value",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": f"{_HEAD}.input_shape",
    "MODEL.SEM_SEG_HEAD.JACCARD_LOSS_WEIGHT": f"{_HEAD}.jaccard_loss_weight",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": f"{_HEAD}.loss_weight",
    "MODEL.SEM_SEG_HEAD.NORM": f"{_HEAD}.norm",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": f"{_HEAD}.num_classes",
    "MODEL.WEIGHTS": "train.init_checkpoint",
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.BEST_CHECKPOINTER.METRIC": "train.best_checkpointer.val_metric",
    "SOLVER.BEST_CHECKPOINTER.MODE": "train.best_checkpointer.mode",
    "SOLVER.CHECKPOINT_PERIOD": "train.checkpointer.period",
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "train.clip_gradients.clip_type",
    "SOLVER.IMS_PER_BATCH": "dataloader.train.total_batch_size",
    "SOLVER.MAX_ITER": "train.max_iter",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.NESTEROV": "optimizer.nesterov",
    "TEST.AUG.ENABLED": "train.test_aug.enabled",
    "TEST.AUG.FLIP": "train.test_aug.flip",
    "TEST.AUG.MAX_SIZE": "train.test_aug.max_size",
    "TEST.AUG.MIN_SIZES": "train.test_aug.min_sizes",
    "TEST.DETECTIONS_PER_IMAGE": f"{ROI_HEADS}.box_predictor.test_topk_per_image",
    "TEST.EVAL_PERIOD": "train.eval_period",
}
"""Where a LazyConfig has the value of a yacs key; ``*`` stands for any part of a list."""

OTHER_PATHS: Final[dict[str, str]] = {
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": "model.combine_instances_score_thresh",
    "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH": "model.combine_overlap_thresh",
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": "model.combine_stuff_area_thresh",
    "MODEL.RESNETS.DEPTH": f"{BOTTOM_UP}.depth",
    "MODEL.RESNETS.NORM": f"{BOTTOM_UP}.norm",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": f"{ROI_HEADS}.box_predictors.-1.test_nms_thresh",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": f"{ROI_HEADS}.box_predictors.-1.test_score_thresh",
    "TEST.DETECTIONS_PER_IMAGE": f"{ROI_HEADS}.box_predictors.-1.test_topk_per_image",
}
"""The same of cascades, whose last stage decides, and of detectron2's own panoptic network."""

CLASSES: Final[dict[str, tuple[str, Registry]]] = {
    "MODEL.ANCHOR_GENERATOR.NAME": (f"{_RPN}.anchor_generator", modeling.ANCHOR_GENERATOR_REGISTRY),
    "MODEL.META_ARCHITECTURE": ("model", modeling.META_ARCH_REGISTRY),
    "MODEL.PROPOSAL_GENERATOR.NAME": (_RPN, modeling.PROPOSAL_GENERATOR_REGISTRY),
    "MODEL.ROI_HEADS.NAME": (ROI_HEADS, modeling.ROI_HEADS_REGISTRY),
}
"""Keys that name a registered class, and where a LazyConfig has the class itself, or one that is derived from it."""
