"""COCO's stuff, with all things as "other", as detectron2's ``*_stuffonly`` sets have it."""

from .coco_panoptic import dataloader

dataloader.train.dataset.names = "coco_2017_train_panoptic_stuffonly"
dataloader.test.dataset.names = "coco_2017_val_panoptic_stuffonly"
dataloader.train.mapper.categories = None  # the targets are files
dataloader.evaluator.outputs = ["sem_seg"]
