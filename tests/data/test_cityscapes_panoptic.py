import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cityscapes_tree import draw_cityscapes
from cityscapesscripts.helpers.labels import labels
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.cityscapes_labels import IGNORED, categories
from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.data.cityscapes_panoptic import describe_cityscapes_panoptic, main, register_cityscapes_panoptic
from panoptic_fpn_ext.data.cityscapes_preparation import instance_segments, prepare_cityscapes_panoptic

NAMES = ("cityscapes_panoptic_train", "cityscapes_panoptic_val")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return draw_cityscapes(tmp_path / "cityscapes", images_per_city=1)


def _official(root: Path, folder: Path, train_ids: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    convert2panoptic(str(root / "gtFine"), str(folder), train_ids, ["train", "val"])
    return folder


def _pngs(folder: Path) -> dict[str, list]:
    return {path.name: np.asarray(Image.open(path)).tolist() for path in folder.glob("*.png")}


def test_labels_are_the_official_ones():
    counted = [label for label in labels if not label.ignoreInEval]
    keys = ("id", "name", "supercategory", "isthing", "color")
    rows = [(c.id, c.name, c.category, int(c.hasInstances), list(c.color)) for c in counted]
    assert categories() == [dict(zip(keys, row, strict=True)) for row in rows]
    assert [label.trainId for label in counted] == list(range(19))
    assert {label.id for label in labels if label.ignoreInEval} == IGNORED


def test_prepares_what_the_official_tool_prepares(small_cityscapes, cityscapes_datasets, tmp_path):
    official = _official(small_cityscapes, tmp_path)
    for name in NAMES:
        ours = small_cityscapes / "gtFine" / name
        assert ours.with_suffix(".json").read_bytes() == (official / f"{name}.json").read_bytes()
        assert _pngs(ours) == _pngs(official / name)
    content = json.loads((official / "cityscapes_panoptic_train.json").read_text())
    assert any(s["iscrowd"] for a in content["annotations"] for s in a["segments_info"])


def test_groups_are_crowds_and_ignored_labels_void():
    ids = np.array([[26, 26001, 26001, 0], [7, 7, 29000, 4], [26, 24000, 10, -1]], np.int32)
    panoptic, segments = instance_segments(ids)
    assert panoptic.tolist() == [[26, 26001, 26001, 0], [7, 7, 0, 0], [26, 24000, 0, 0]]
    assert [(s["id"], s["category_id"], s["iscrowd"], s["area"], s["bbox"]) for s in segments] == [
        (7, 7, 0, 2, [0, 1, 2, 1]),
        (26, 26, 1, 2, [0, 0, 1, 3]),
        (24000, 24, 0, 1, [1, 2, 1, 1]),
        (26001, 26, 0, 2, [1, 0, 2, 1]),
    ]
    with pytest.raises(ValueError, match=r"\[77, 40000\] are none of Cityscapes' labels"):
        instance_segments(np.array([[7, 77], [7, 40000]], np.int32))


def test_registers_train_and_val(cityscapes_datasets):
    assert cityscapes_datasets == NAMES
    metadata = MetadataCatalog.get(NAMES[0])
    spaces = PanopticCategories.from_metadata(metadata)
    assert (spaces.num_things, spaces.num_stuff, spaces.num_sem_seg_classes) == (8, 11, 19)
    assert spaces.thing_sem_seg_ids == list(range(11, 19))
    assert metadata.stuff_classes[:2] == ["road", "sidewalk"] and metadata.thing_classes[0] == "person"
    assert [len(DatasetCatalog.get(name)) for name in NAMES] == [6, 3]
    record = DatasetCatalog.get(NAMES[0])[3]
    assert record["file_name"].endswith("leftImg8bit/train/bochum/bochum_000000_000019_leftImg8bit.png")
    assert (record["image_id"], record["height"], record["width"]) == ("bochum_000000_000019", 64, 128)


def test_targets_follow_the_official_label_files(cityscapes_datasets):
    """The semantic target has the train ids of ``labelIds``, groups too; instances are the countable ones."""
    spaces = PanopticCategories.from_metadata(MetadataCatalog.get(NAMES[0]))
    mapper = PanopticDatasetMapper(True, categories=spaces, augmentations=[])
    train_ids = np.array([next((x.trainId for x in labels if x.id == i), 255) for i in range(256)])
    for record in DatasetCatalog.get(NAMES[0]):
        mapped = mapper(record)
        truth = record["file_name"].replace("leftImg8bit/train", "gtFine/train")
        label_ids = np.asarray(Image.open(truth.replace("leftImg8bit", "gtFine_labelIds")))
        instance_ids = np.asarray(Image.open(truth.replace("leftImg8bit", "gtFine_instanceIds"))).astype(int)
        assert np.array_equal(mapped["sem_seg"].numpy(), train_ids[label_ids])
        countable = [i for i in np.unique(instance_ids) if i >= 1000 and i // 1000 != 29]
        masks = mapped["instances"].gt_masks.tensor.numpy()
        assert np.array_equal(masks, np.stack([instance_ids == i for i in countable]))
        assert mapped["instances"].gt_classes.tolist() == [i // 1000 - 24 for i in countable]


def test_reads_what_the_official_tool_prepared_with_train_ids(tree, no_cityscapes):
    _official(tree, tree / "gtFine", train_ids=True)
    register_cityscapes_panoptic(str(tree))
    assert not (tree / "gtFine" / "cityscapes_panoptic_train.json").exists()
    assert MetadataCatalog.get(NAMES[0]).thing_dataset_id_to_contiguous_id == {i + 11: i for i in range(8)}
    spaces = PanopticCategories.from_metadata(MetadataCatalog.get(NAMES[0]))
    assert spaces.thing_sem_seg_ids == list(range(11, 19))
    assert {s["category_id"] for s in DatasetCatalog.get(NAMES[0])[0]["segments_info"] if not s["isthing"]} >= {0}


def test_describing_needs_no_files(small_cityscapes, no_cityscapes):
    describe_cityscapes_panoptic()
    assert MetadataCatalog.get(NAMES[1]).thing_classes[2] == "car"
    register_cityscapes_panoptic(str(small_cityscapes))
    assert MetadataCatalog.get(NAMES[1]).gt_dir == str(small_cityscapes / "gtFine" / "val")


def test_one_city_of_one_split(tree, no_cityscapes):
    shutil.rmtree(tree / "gtFine" / "train")
    register_cityscapes_panoptic(str(tree))
    assert NAMES[0] not in DatasetCatalog and len(DatasetCatalog.get(NAMES[1])) == 1


def test_what_an_interruption_leaves_is_made_again(tree):
    """The second of two images ends the first attempt."""
    second = sorted((tree / "gtFine" / "train").rglob("*_instanceIds.png"))[1]
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{second.name}.*cannot be read"):
        prepare_cityscapes_panoptic(str(tree), "train")
    folder = tree / "gtFine" / "cityscapes_panoptic_train"
    assert len(_pngs(folder)) == 1 and not folder.with_suffix(".json").exists()
    second.write_bytes(whole)
    prepare_cityscapes_panoptic(str(tree), "train")
    assert len(_pngs(folder)) == len(json.loads(folder.with_suffix(".json").read_text())["annotations"]) == 2


def test_command_line(tree, capsys):
    main(["--root", str(tree)])
    main(["--root", str(tree)])  # what is there stays
    assert capsys.readouterr().out.count("is there.") == 4
    with pytest.raises(FileNotFoundError, match="neither"):
        main(["--root", str(tree / "elsewhere")])


def test_what_is_missing_is_named(tree, no_cityscapes):
    for path in (tree / "gtFine" / "train").rglob("*_instanceIds.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"instanceIds\.png.*there are only labelIds\.png, polygons\.json"):
        register_cityscapes_panoptic(str(tree))
    register_cityscapes_panoptic(str(tree), ["val"])
    (tree / "leftImg8bit" / "val" / "lindau" / "lindau_000000_000019_leftImg8bit.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"val/lindau/lindau_000000_000019_leftImg8bit\.png"):
        DatasetCatalog.get(NAMES[1])
    shutil.rmtree(tree / "leftImg8bit")
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit_trainvaltest\.zip"):
        DatasetCatalog.get(NAMES[1])


def test_a_place_that_cannot_be_written_to(tree):
    (tree / "gtFine" / "cityscapes_panoptic_train").touch()
    with pytest.raises(OSError, match=r"Cannot write .*cityscapes_panoptic_train \(.*Make gtFine writable"):
        prepare_cityscapes_panoptic(str(tree), "train")


def test_ground_truth_of_another_kind(tree):
    path = next((tree / "gtFine" / "train").rglob("*_instanceIds.png"))
    Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(ValueError, match=f"{path.name}.*one channel"):
        prepare_cityscapes_panoptic(str(tree), "train")


def test_images_without_ground_truth_are_left_out_with_a_word(tree, caplog, no_cityscapes):
    register_cityscapes_panoptic(str(tree), ["val"])
    image = tree / "leftImg8bit" / "val" / "lindau" / "lindau_000000_000019_leftImg8bit.png"
    shutil.copy(image, image.with_name("lindau_000009_000019_leftImg8bit.png"))
    assert len(DatasetCatalog.get(NAMES[1])) == 1
    assert "does not list 1 of 2 images" in caplog.text
