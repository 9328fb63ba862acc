# Data in COCO panoptic format of one's own, as in the YAML config of this name:
#   lazyconfig_train_net.py --register user_train IMAGES PNGS JSON --register user_val IMAGES PNGS JSON
from detectron2.config import LazyConfig

_street = LazyConfig.load_rel("../SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
dataloader, lr_multiplier, model, optimizer, train = (
    _street[name] for name in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)

model.roi_heads.num_classes = model.sem_seg_head.num_classes = 0  # taken from the dataset
model.combiner.stuff_area_threshold = 1024

dataloader.train.dataset.names = "user_train"
dataloader.test.dataset.names = "user_val"
dataloader.train.mapper.augmentations[0].update(short_edge_length=[240, 272, 304, 336], max_size=560)
dataloader.test.mapper.augmentations[0].update(short_edge_length=288, max_size=480)

train.max_iter = 3000
train.eval_period = 0
train.test_aug.update(min_sizes=[240, 288, 336], max_size=560)
lr_multiplier.warmup_length = 100 / train.max_iter
train.output_dir = "output/user/panoptic_fpn_R_18_narrow"
