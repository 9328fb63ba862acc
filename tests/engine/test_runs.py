"""What a run uses, what it says of that before it begins, and what it leaves where it does not begin."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bad_input_data import global_state_restored
from detectron2.config import CfgNode

from panoptic_fpn_ext.engine import device, output_folder
from panoptic_fpn_ext.engine.checks import fill_in_num_classes
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config
from panoptic_fpn_ext.engine.output_folder import hold_output_folder, make_folder
from panoptic_fpn_ext.engine.runs import adopted, refuse_missing_weights, warn_of_learnt_images

MINE = ("mine_train", "mine_val")


@pytest.mark.parametrize(
    ("registered", "typed", "train", "test"),
    [
        # Nothing typed: the config is of other datasets.
        (["a"], {}, ["a"], ["a"]),
        (["a", "b"], {}, ["a"], ["b"]),
        (["a", "b", "c"], {}, ["a"], ["b"]),
        ([], {}, MINE[:1], MINE[1:]),
        # The config names one of them.
        (["mine_train", "b"], {}, MINE[:1], MINE[1:]),
        (["mine_val"], {}, MINE[:1], MINE[1:]),
        # What is typed stays, and the other key gets what is left.
        (["a"], {"test": ()}, ["a"], []),
        (["a", "b"], {"test": ("b",)}, ["a"], ["b"]),
        (["a", "b"], {"train": ("b",)}, ["b"], ["a"]),
        (["a"], {"train": ("a",)}, ["a"], MINE[1:]),
        (["mine_train", "b"], {"test": ()}, MINE[:1], []),
        (["a"], {"train": ("x",), "test": ("y",)}, ["x"], ["y"]),
    ],
)
def test_registered_datasets_are_adopted(registered, typed, train, test, caplog):
    caplog.set_level(logging.INFO)
    former = typed.get("train", MINE[:1]), typed.get("test", MINE[1:])
    found = adopted(registered, *former, typed=("train" in typed, "test" in typed))
    assert [list(names) for names in found] == [list(train), list(test)]
    changed = [list(names) for names in found] != [list(names) for names in former]
    assert ("as they are registered" in caplog.text) == changed
    unused = set(registered) - {*train, *test}
    assert not unused or "not used" in caplog.text
    assert all(name in caplog.text for name in unused)


def test_one_dataset_of_a_name_in_the_config_is_for_both(caplog, monkeypatch):
    """Of the names that configs for datasets of one's own have; others are datasets that exist somewhere."""
    caplog.set_level(logging.INFO)
    own = (("user_train",), ("user_val",))
    assert adopted(["user_train"], *own) == (("user_train",), ["user_train"])
    assert "user_train to be evaluated on, since user_val is not registered" in caplog.text
    assert adopted(["user_val"], *own) == (["user_val"], ("user_val",))
    assert adopted(["user_train"], *own, training=False) == (("user_train",), ["user_train"])
    assert adopted(["user_val"], *own, training=False) == own
    assert adopted(["user_train"], *own, training=None) == own
    assert adopted(["user_train"], *own, typed=(False, True)) == own
    assert adopted(["mine_train"], *((name,) for name in MINE)) == (MINE[:1], MINE[1:])
    caplog.clear()
    assert adopted([], *own) == own
    assert not caplog.text
    monkeypatch.setattr("panoptic_fpn_ext.engine.runs.DatasetCatalog", {"user_val": None})
    assert adopted(["user_train"], *own) == own


def test_an_evaluation_says_nothing_of_what_it_would_train_on(caplog):
    caplog.set_level(logging.INFO)
    assert adopted(["a"], MINE[:1], MINE[1:], training=False) == (["a"], ["a"])
    assert "Datasets: a to be evaluated on, as they are registered" in caplog.text
    assert "not used" not in caplog.text
    assert adopted(["a", "b"], MINE[:1], MINE[1:], training=False) == (["a"], ["b"])
    assert "Datasets: b to be evaluated on, as they are registered; not used: a" in caplog.text


def test_a_lazy_config_adopts_what_is_left(small_street, tmp_path):
    paths = [str(small_street / path) for path in ("train", "panoptic_train", "annotations/panoptic_train.json")]
    words = ["dataloader.test.dataset.names=[]", f"train.output_dir={tmp_path}"]
    with global_state_restored():
        name = "User-PanopticSegmentation/panoptic_fpn_R_18_narrow.py"
        cfg = load_lazy_config(name, words, [["lazy_one", *paths]])
    assert cfg.dataloader.train.dataset.names == "lazy_one" and not cfg.dataloader.test.dataset.names


def test_results_on_learnt_images_are_said_to_be(caplog):
    warn_of_learnt_images(["a", "b"], ["c"])
    warn_of_learnt_images(["a"], [])
    assert not caplog.records
    warn_of_learnt_images(["a", "b"], ["b", "c"])
    assert caplog.text.count("b is trained on and evaluated on") == 1
    assert "a second --register" in caplog.text and "--split" in caplog.text


@pytest.mark.parametrize(
    ("typed", "said", "unsaid"),
    [
        ((), ("ROI_HEADS.NUM_CLASSES 4", "SEM_SEG_HEAD.NUM_CLASSES 8"), ()),
        (("ROI_HEADS",), ("SEM_SEG_HEAD.NUM_CLASSES 8",), ("ROI_HEADS",)),
        (("SEM_SEG_HEAD",), ("ROI_HEADS.NUM_CLASSES 4",), ("SEM_SEG_HEAD",)),
    ],
)
def test_only_sizes_that_were_taken_are_from_the_dataset(tiny_cfg: CfgNode, caplog, typed, said, unsaid):
    caplog.set_level(logging.INFO)
    for head in ("ROI_HEADS", "SEM_SEG_HEAD"):
        tiny_cfg.MODEL[head].NUM_CLASSES = 5 if head in typed else 0
    fill_in_num_classes(tiny_cfg)
    assert "From dataset" in caplog.text
    assert all(text in caplog.text for text in said) and not any(text in caplog.text for text in unsaid)


def test_an_evaluation_without_weights_names_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the weights of ImageNet may have been made here
    missing = {"path": "", "key": "MODEL.WEIGHTS", "needed": True, "folder": str(tmp_path)}
    with pytest.raises(ValueError, match=r"set it to the checkpoint to evaluate\.$"):
        refuse_missing_weights(**missing)
    torch.save({"model": {}, "iteration": 3}, tmp_path / "model_final.pth")
    with pytest.raises(ValueError, match=rf"take it by MODEL\.WEIGHTS {tmp_path}/model_final\.pth\."):
        refuse_missing_weights(**missing)
    absent = {**missing, "path": "output/efficientnet_lite0.pth", "key": "train.init_checkpoint"}
    with pytest.raises(FileNotFoundError, match=rf"take it by train\.init_checkpoint={tmp_path}/model_final\.pth\."):
        refuse_missing_weights(**absent)
    with pytest.raises(FileNotFoundError, match="They are made by"):  # a training starts from these
        refuse_missing_weights(**{**absent, "needed": False})
    (tmp_path / "model_final.pth").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"set it to the checkpoint to evaluate\.$"):
        refuse_missing_weights(**missing)


def _ended(code: Callable[[], None]) -> None:
    """Run a function in a process that then ends as processes do."""
    child = os.fork()
    if child == 0:
        output_folder._held.clear()
        output_folder._made.clear()
        code()
        output_folder._tidy_up(os.getpid())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_refused_run_leaves_no_folder(tmp_path: Path):
    _ended(lambda: hold_output_folder(str(tmp_path / "a" / "b")))
    assert not (tmp_path / "a").exists()
    (tmp_path / "own").mkdir()
    _ended(lambda: hold_output_folder(str(tmp_path / "own")))
    assert list((tmp_path / "own").iterdir()) == []

    def overfits() -> None:
        make_folder(str(tmp_path / "c" / "overfit"))
        hold_output_folder(str(tmp_path / "c" / "overfit"))

    _ended(overfits)
    assert not (tmp_path / "c").exists()


def test_a_run_that_wrote_keeps_its_folder(tmp_path: Path):
    def writes() -> None:
        hold_output_folder(str(tmp_path / "a"))
        (tmp_path / "a" / "log.txt").write_text("said")

    _ended(writes)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {".lock", "log.txt"}


def test_a_missing_gpu_is_said_once(tiny_cfg: CfgNode, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device._say_device.cache_clear()
    for _ in range(2):
        tiny_cfg.MODEL.DEVICE = "cuda"
        device.use_available_device(tiny_cfg)
        assert tiny_cfg.MODEL.DEVICE == "cpu"
    assert caplog.text.count("No GPU was found") == 1
