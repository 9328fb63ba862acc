"""No damaged dataset trains silently on wrong data, and each is refused by a sentence that names the file."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input_data import TinyDataset, train_net, train_net_args, truncate
from damaged_data import damage
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.engine.data_checks import check_data
from panoptic_fpn_ext.engine.setup import load_config
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

SEEDS = range(40)

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def dataset(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path / "data", num=3)


def _config(dataset: TinyDataset, name: str, *extra: str) -> CfgNode:
    args = train_net_args(dataset, name, dataset.json.parent / "output", "INPUT.RANDOM_FLIP", "none", *extra)
    return load_config(args.config_file, args.opts, args.register)


def _samples(dataset: TinyDataset, name: str) -> dict[str, Any]:
    """What a training would see of each image, by the image's name."""
    cfg = _config(dataset, name)
    check_data(cfg)
    mapper = PanopticDatasetMapper(cfg, is_train=True)
    return {Path(d["file_name"]).name: mapper(d) for d in DatasetCatalog.get(name)}


def outcome(folder: Path, seed: int, caplog: pytest.LogCaptureFixture) -> str:
    """What comes of a damaged dataset: "refused", "said" or "unharmed"; anything else fails."""
    dataset = TinyDataset(folder / "data", num=3)
    sound = _samples(dataset, f"sound_{folder}")
    caplog.clear()
    done = damage(dataset, seed)
    try:
        found = _samples(dataset, f"damaged_{folder}")
    except (ValueError, KeyError, OSError) as error:
        text = str(error)
        assert str(dataset.json.parent) in text and len(text) > 40, f"{done}\n{text}"
        return "refused"
    if any(record.levelno >= logging.WARNING for record in caplog.records):
        return "said"
    assert found.keys() == sound.keys(), done
    for name, sample in found.items():
        assert torch.equal(sample["sem_seg"], sound[name]["sem_seg"]), done
        for field in ("gt_classes", "gt_boxes"):
            one, other = (s["instances"].get(field) for s in (sample, sound[name]))
            assert torch.equal(getattr(one, "tensor", one), getattr(other, "tensor", other)), done
        assert torch.equal(sample["image"], sound[name]["image"]), done
    return "unharmed"


@pytest.mark.parametrize("seed", SEEDS)
def test_damage(tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    outcome(tmp_path, seed, caplog)


def test_exchanged_maps_are_refused_before_training_and_by_the_mapper(dataset: TinyDataset, tmp_path: Path):
    first, second = dataset.png(1).read_bytes(), dataset.png(2).read_bytes()
    dataset.png(1).write_bytes(second)
    dataset.png(2).write_bytes(first)
    with pytest.raises(
        ValueError, match=r"(?s)image_1\.png, segment 1: area .*python -m panoptic_fpn_ext\.data\.check"
    ):
        train_net(dataset, "tiny_exchanged", tmp_path / "output")
    with pytest.raises(ValueError, match="whose area is another one"):
        train_net(dataset, "tiny_exchanged", tmp_path / "output", "DATASETS.CHECKED_IMAGES", "0")


def test_errors_are_allowed_by_key(dataset: TinyDataset, caplog: pytest.LogCaptureFixture):
    ids = read_panoptic_png(str(dataset.png(1)))
    ids[ids == 4] = 70001
    write_panoptic_png(str(dataset.png(1)), ids)
    with pytest.raises(ValueError, match=r"DATASETS\.ALLOW_ERRORS True"):
        check_data(_config(dataset, "tiny_errors"))
    cfg = _config(dataset, "tiny_errors", "DATASETS.ALLOW_ERRORS", "True")
    check_data(cfg)
    assert "id 70001" in caplog.text
    one = PanopticDatasetMapper(cfg, is_train=True)(DatasetCatalog.get("tiny_errors")[0])
    assert (one["sem_seg"] == 255).sum() == (ids == 70001).sum()
    assert len(one["instances"]) == 1


def test_categories_that_one_part_alone_shows_are_said(
    dataset: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Crowds, which are neither learnt as instances nor measured, do not count."""
    val = TinyDataset(tmp_path / "val", num=2)
    for one in val.content["annotations"]:
        one["segments_info"] = [s for s in one["segments_info"] if s["category_id"] != 9]
        one["segments_info"][0]["iscrowd"] = 1
    for one in dataset.content["annotations"]:
        one["segments_info"] = [s for s in one["segments_info"] if s["category_id"] != 4]
    for part in (dataset, val):
        part.save()
    args = train_net_args(dataset, "tiny_one", tmp_path / "output", "DATASETS.TEST", "('tiny_two', 'tiny_one')")
    cfg = load_config(args.config_file, args.opts, [*args.register, val.registration("tiny_two")])
    cfg.defrost()
    cfg.DATASETS.ALLOW_ERRORS = True
    caplog.set_level(logging.INFO)
    check_data(cfg)
    said = [text for text in caplog.messages if text.startswith("Data: segments of")]
    assert said == [
        "Data: segments of ball, sky only in tiny_one, so not measured; of box only in tiny_two, so not learnt"
    ]
    caplog.clear()
    cfg.DATASETS.TEST = ("tiny_one",)
    check_data(cfg)
    assert "Data: segments of" not in caplog.text


def test_images_of_both_parts_are_said(dataset: TinyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The same file under another dataset's name, and a copy; not another image of that name."""
    val = TinyDataset(tmp_path / "val", num=3)
    val.image(1).write_bytes(dataset.image(1).read_bytes())
    val.image(2).write_bytes(dataset.image(2).read_bytes()[:-1] + b"\x00")
    val.image(3).write_bytes(dataset.image(1).read_bytes())
    args = train_net_args(dataset, "tiny_learnt", tmp_path / "output", "DATASETS.TEST", "('tiny_copied',)")
    registrations = [*args.register, val.registration("tiny_copied"), dataset.registration("tiny_again")]
    cfg = load_config(args.config_file, args.opts, registrations)
    check_data(cfg)
    assert (
        f"1 of the 3 images of tiny_copied are trained on too, as images of tiny_learnt: {val.image(1)}. "
        in caplog.text
    )
    assert "data.check … --against …" in caplog.text
    caplog.clear()
    cfg.defrost()
    cfg.DATASETS.TEST = ("tiny_again", "tiny_learnt")
    check_data(cfg)
    assert "3 of the 3 images of tiny_again are trained on too" in caplog.text
    assert "images of tiny_learnt are" not in caplog.text  # the same name is said without reading the datasets


def test_an_unreadable_file_is_said_before_training(dataset: TinyDataset, caplog: pytest.LogCaptureFixture):
    truncate(dataset.image(2))
    check_data(_config(dataset, "tiny_unreadable"))
    assert "image_2.jpg" in caplog.text
