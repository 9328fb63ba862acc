"""Wrong keys and values of configs are named, with what was meant."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from panoptic_fpn_ext import add_panoptic_fpn_ext_config
from panoptic_fpn_ext.engine.settings.config_keys import merge_file, merge_pairs


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_panoptic_fpn_ext_config(cfg)
    return cfg


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (["SOLVER.MAXITER", "3"], "no config key SOLVER.MAXITER. Did you mean SOLVER.MAX_ITER?"),
        (["solver.max_iter", "3"], "Did you mean SOLVER.MAX_ITER?"),
        (["MAX_ITER", "3"], "Did you mean SOLVER.MAX_ITER?"),
        (["MODEL.ROI_HEAD.NUM_CLASSES", "3"], "Did you mean MODEL.ROI_HEADS.NUM_CLASSES"),
        (["MODEL.PANOPTIC_FPN.OUTPUT", "3"], "Did you mean MODEL.PANOPTIC_FPN.OUTPUTS"),
        (["XYZ", "3"], "no config key XYZ."),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER must be an integer (it is 40000), got 'many'"),
        (["SOLVER.AMP.ENABLED", "yes"], "must be True or False"),
        (["SOLVER", "3"], "SOLVER is a section"),
        (["DATASETS.TRAIN", "mine"], "write DATASETS.TRAIN \"('mine',)\""),
        (["TEST.AUG.MIN_SIZES", "240"], 'write TEST.AUG.MIN_SIZES "(240,)"'),
        (["SOLVER.MAX_ITER"], "the last one is alone: SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER", "3", "--resume"], "--resume go before the first KEY"),
        (["SOLVER.MAX_ITER=3"], "with a space"),
    ],
)
def test_pairs(cfg: CfgNode, pairs: list[str], words: str):
    with pytest.raises(ValueError) as caught:
        merge_pairs(cfg, pairs)
    assert words in str(caught.value)


def test_words_that_look_like_another_type(cfg: CfgNode):
    merge_pairs(cfg, ["SOLVER.BASE_LR", "1", "OUTPUT_DIR", "2024", "SOLVER.MAX_ITER", "7"])
    assert (cfg.SOLVER.BASE_LR, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER) == (1.0, "2024", 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SOLVER:\n  MAXITER: 3\n", "child.yaml: there is no config key SOLVER.MAXITER. Did you mean SOLVER.MAX_ITER?"),
        ("SOLVER:\n  MAX_ITER: many\n", "child.yaml: SOLVER.MAX_ITER must be an integer (it is 40000), got 'many'"),
        ("_BASE_: parent.yaml\nVERSION: 2\n", "parent.yaml: there is no config key MODEL.MASK_OM. Did you mean"),
        ("MODEL: [\n", "child.yaml is no config"),
        ("words\n", "child.yaml is no config"),
        ("", "child.yaml is no config"),
        ("model:\n  _target_: a.B\n  shape: !!python/object:a.C {}\n", "child.yaml is a LazyConfig: lazyconfig_"),
    ],
)
def test_files(cfg: CfgNode, tmp_path: Path, text: str, words: str):
    (tmp_path / "parent.yaml").write_text("MODEL:\n  MASK_OM: True\n")
    (tmp_path / "child.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:
        merge_file(cfg, str(tmp_path / "child.yaml"))
    assert words in str(caught.value)


def test_missing_base(cfg: CfgNode, tmp_path: Path):
    (tmp_path / "child.yaml").write_text("_BASE_: nothing.yaml\n")
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml"):
        merge_file(cfg, str(tmp_path / "child.yaml"))
