from detectron2.model_zoo import get_config

from ..common.train import train

_mask_rcnn = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model, optimizer = (
    _mask_rcnn[name] for name in ("dataloader", "lr_multiplier", "model", "optimizer")
)
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
