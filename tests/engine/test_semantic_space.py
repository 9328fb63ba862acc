"""Which classes the semantic head tells apart, chosen by a key for datasets of the command line."""

from pathlib import Path

import pytest
import torch
from bad_input_data import TinyDataset, global_state_restored, project_script, train_net
from places import REPOSITORY

from panoptic_fpn_ext.data import dataset_categories
from panoptic_fpn_ext.engine import argument_parser

LAZY = REPOSITORY / "configs/User-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"
SPACE = "DATASETS.SEM_SEG_SPACE"
OF_THE_DATA = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0")


@pytest.fixture
def dataset(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path / "data")


def _classes(checkpoint: Path) -> int:
    weights = torch.load(checkpoint, weights_only=False)["model"]
    return len(weights["sem_seg_head.predictor.weight"])


def test_things_are_told_apart_where_the_key_says_so_and_the_trained_model_knows_it(dataset, tmp_path):
    with global_state_restored():
        train_net(dataset, "tiny_space", tmp_path / "all", SPACE, "all_classes", *OF_THE_DATA)
        categories = dataset_categories("tiny_space")
    assert categories.sem_seg_space == "all_classes"
    assert _classes(tmp_path / "all" / "model_final.pth") == categories.num_things + categories.num_stuff
    with global_state_restored():  # without the key
        weights = ("MODEL.WEIGHTS", str(tmp_path / "all" / "model_final.pth"))
        found = train_net(dataset, "tiny_space", tmp_path / "evaluated", "--eval-only", *weights, *OF_THE_DATA)
        assert dataset_categories("tiny_space").sem_seg_space == "all_classes"
    assert "PQ" in found["panoptic_seg"]


def test_a_resumed_training_keeps_its_space_and_its_config(dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    output = tmp_path / "output"
    with global_state_restored():
        train_net(dataset, "tiny_space", output, SPACE, "all_classes", *OF_THE_DATA)
    left = (output / "config.yaml").read_bytes()
    with global_state_restored(), pytest.raises(ValueError, match="another architecture"):
        train_net(dataset, "tiny_space", output, "--resume", "MODEL.FPN.OUT_CHANNELS", "64", *OF_THE_DATA)
    assert (output / "config.yaml").read_bytes() == left
    with global_state_restored():  # without the key
        train_net(dataset, "tiny_space", output, "--resume", *OF_THE_DATA, "SOLVER.MAX_ITER", "3")
    config = (output / "config.yaml").read_text()
    assert "SEM_SEG_SPACE: all_classes" in config and "MAX_ITER: 3" in config
    assert "has all_classes, which holds" in caplog.text


def test_things_are_one_class_by_default(dataset, tmp_path):
    with global_state_restored():
        train_net(dataset, "tiny_space", tmp_path / "other")
        num_stuff = dataset_categories("tiny_space").num_stuff
    assert _classes(tmp_path / "other" / "model_final.pth") == num_stuff + 1


def test_lazy_configs_have_it_too(dataset, tmp_path):
    words = ["--config-file", str(LAZY), "--register", *dataset.registration("tiny_space"), "train.max_iter=1"]
    words += [
        "dataloader.train.total_batch_size=1",
        "train.sem_seg_space=all_classes",
        f"train.output_dir={tmp_path / 'lazy'}",
    ]
    sizes = [f"dataloader.{part}.mapper.augmentations.0.short_edge_length=48" for part in ("train", "test")]
    with global_state_restored():
        project_script("panoptic_fpn/lazyconfig_train_net.py").main(argument_parser().parse_args([*words, *sizes]))
        categories = dataset_categories("tiny_space")
    assert _classes(tmp_path / "lazy" / "model_final.pth") == categories.num_things + categories.num_stuff


@pytest.mark.parametrize("value", ["all", "stuff"])
def test_other_spaces_are_refused(dataset, tmp_path, value):
    with pytest.raises(ValueError, match=r"DATASETS\.SEM_SEG_SPACE.*all_classes"):
        train_net(dataset, "tiny_space", tmp_path / "output", SPACE, value)
