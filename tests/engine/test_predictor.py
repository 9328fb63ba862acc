"""Prediction of single images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.modeling import build_model
from PIL import Image

from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import PanopticDatasetMapper, read_image
from panoptic_fpn_ext.data.street.categories import categories
from panoptic_fpn_ext.engine import FailedImagesError, PanopticCheckpointer, PanopticPredictor
from panoptic_fpn_ext.engine.checkpoints.model_categories import CategorySource, set_model_source


@pytest.fixture
def cfg(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    return _with_weights(tiny_cfg, tmp_path)


def _with_weights(cfg: CfgNode, folder: Path) -> CfgNode:
    DetectionCheckpointer(build_model(cfg), str(folder)).save("weights")
    cfg.MODEL.WEIGHTS = str(folder / "weights.pth")
    return cfg


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601", "HSV"])
def test_it_predicts_what_an_evaluation_predicts(tiny_cfg: CfgNode, tmp_path: Path, image_format: str):
    tiny_cfg.INPUT.FORMAT = image_format
    if image_format == "L":
        tiny_cfg.MODEL.PIXEL_MEAN, tiny_cfg.MODEL.PIXEL_STD = [110.0], [1.0]
    cfg = _with_weights(tiny_cfg, tmp_path)
    predictor = PanopticPredictor(cfg)
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=PanopticDatasetMapper(cfg, is_train=False))
    inputs = next(iter(loader))
    with torch.no_grad():
        expected = predictor.model(inputs)[0]
    output = predictor(read_image(inputs[0]["file_name"], "BGR"))
    assert torch.equal(output["sem_seg"], expected["sem_seg"])
    assert torch.equal(output["panoptic_seg"][0], expected["panoptic_seg"][0])
    names = {"thing_classes": predictor.metadata.thing_classes, "stuff_classes": predictor.metadata.stuff_classes}
    for segment, bare in zip(output["panoptic_seg"][1], expected["panoptic_seg"][1], strict=True):
        kind = "thing_classes" if bare["isthing"] else "stuff_classes"
        assert segment == {**bare, "name": names[kind][bare["category_id"]]}


def test_the_channels_of_format_and_pixel_mean_must_agree(cfg: CfgNode):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(ValueError, match=r"'L' has 1 channels, but MODEL\.PIXEL_MEAN has 3 values"):
        PanopticPredictor(cfg)
    cfg.INPUT.FORMAT = "GRAY"
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT must be one of .*'GRAY'"):
        PanopticPredictor(cfg)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (70, 50), (1, 3000), (3000, 1), (3000, 2), (5, 2000)])
def test_images_of_any_size_give_maps_of_that_size(cfg: CfgNode, size: tuple[int, int]):
    image = np.zeros((*size, 3), dtype=np.uint8)
    output = PanopticPredictor(cfg)(image)
    assert output["panoptic_seg"][0].shape == size
    assert output["sem_seg"].shape == (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, *size)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_arrays_are_refused(cfg: CfgNode, image: np.ndarray):
    with pytest.raises(ValueError, match=r"uint8 image of shape \(H, W, 3\)"):
        PanopticPredictor(cfg)(image)


def test_the_config_stays_as_it_is_and_a_missing_gpu_is_no_obstacle(cfg: CfgNode):
    cfg.MODEL.DEVICE = "cuda"
    before = cfg.dump()
    cfg.freeze()
    predictor = PanopticPredictor(cfg)
    assert cfg.dump() == before
    assert next(predictor.model.parameters()).is_cuda == torch.cuda.is_available()
    assert predictor.metadata.name == cfg.DATASETS.TEST[0]


def test_weights_are_needed_and_must_fit(cfg: CfgNode):
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 64
    with pytest.raises(ValueError, match="another architecture"):
        PanopticPredictor(cfg)
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        PanopticPredictor(cfg)


def test_head_sizes_must_fit_the_dataset(cfg: CfgNode):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(ValueError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES is 80: set it to 4"):
        PanopticPredictor(cfg)


def test_unknown_dataset(cfg: CfgNode):
    cfg.DATASETS.TEST = ("nowhere",)
    with pytest.raises(KeyError, match="nowhere"):
        PanopticPredictor(cfg)


# -- by name ---------------------------------------------------------------------------------------------------------

ZOO = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"


def _same(output: dict, expected: dict) -> bool:
    (ids, segments), (expected_ids, expected_segments) = output["panoptic_seg"], expected["panoptic_seg"]
    return torch.equal(ids, expected_ids) and segments == expected_segments


def test_a_name_of_the_zoo_and_images_of_all_kinds(small_street: Path, tmp_path: Path):
    """What it sees has names, though no dataset is registered."""
    predictor = PanopticPredictor(ZOO)
    path = small_street / "val" / "street_val_000000.png"
    array, image = read_image(str(path), "BGR"), Image.open(path)
    expected = predictor(array)
    names = {segment["name"] for segment in expected["panoptic_seg"][1]}
    assert "road" in names and names <= {*predictor.metadata.thing_classes, *predictor.metadata.stuff_classes}
    assert all(_same(predictor(one), expected) for one in (image, path, str(path)))
    outputs = predictor([array, image, path])
    assert isinstance(outputs, list) and len(outputs) == 3
    assert all(_same(output, expected) for output in outputs)
    assert predictor([]) == []
    with pytest.raises(FileNotFoundError, match="no_such"):
        predictor(tmp_path / "no_such.png")


def test_images_of_a_list_that_fail_are_named_and_the_others_kept(cfg: CfgNode, small_street: Path, tmp_path: Path):
    predictor = PanopticPredictor(cfg)
    path, broken = small_street / "val" / "street_val_000000.png", tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    expected, forward = predictor(path), predictor.model.forward

    def fail_when_small(inputs: list[dict]) -> list[dict]:
        if inputs[0]["height"] == 7:
            raise RuntimeError("not enough memory\nmore")
        return forward(inputs)

    predictor.model.forward = fail_when_small
    grey, small = np.zeros((8, 8), np.uint8), np.zeros((7, 9, 3), np.uint8)
    images = [tmp_path / "no_such.png", path, grey, str(broken), small, path]
    with pytest.raises(FailedImagesError, match="4 of 6 images could not be read or predicted") as caught:
        predictor(images)
    error = caught.value
    assert {i: type(e) for i, e in error.errors.items()} == {
        0: FileNotFoundError,
        2: ValueError,
        3: ValueError,
        4: RuntimeError,
    }
    assert [output is None for output in error.outputs] == [True, False, True, True, True, False]
    assert all(_same(error.outputs[index], expected) for index in (1, 5))
    _, *lines = str(error).splitlines()
    assert [line.split(":")[0] for line in lines] == ["  - image 0", "  - image 2", "  - image 3", "  - image 4"]
    assert "no_such.png does not exist" in lines[0] and f"Image {broken} is empty" in lines[2]
    assert lines[3].endswith("not enough memory")


def test_a_checkpoint_with_its_config_beside_it(cfg: CfgNode, tmp_path: Path):
    """Of a dataset that is not known, with head sizes that the config leaves to the data."""
    source = CategorySource(PanopticCategories(categories()), "the street")
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ("of_somebody_else",)
    cfg.MODEL.WEIGHTS = ""
    model = build_model(cfg)
    set_model_source(model, source)
    run = tmp_path / "run"
    run.mkdir()
    PanopticCheckpointer(model, str(run)).save("model_final")
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 0
    (run / "config.yaml").write_text(cfg.dump())
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    expected = PanopticPredictor(cfg, str(run / "model_final.pth"))(image)
    for name in (run / "model_final.pth", run, run / "config.yaml"):
        predictor = PanopticPredictor(str(name))
        assert predictor.metadata.thing_classes == ["person", "car", "bus", "traffic sign"]
        assert _same(predictor(image), expected)
    with pytest.raises(FileNotFoundError, match=r"no_such\.pth"):
        PanopticPredictor(str(run / "no_such.pth"))
    (run / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"config of checkpoint .*model_final\.pth"):
        PanopticPredictor(str(run / "model_final.pth"))
    with pytest.raises(FileNotFoundError, match=r"model_zoo lists"):
        PanopticPredictor("no/such/model")


def test_a_program_of_ones_own_says_what_it_prints_alone(tmp_path: Path):
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    program = (
        "from panoptic_fpn_ext.engine import PanopticPredictor\n"
        "predictor = PanopticPredictor('SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow')\n"
        "print(predictor('photo.png')['panoptic_seg'][0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("torch.Size([48, 64])\n", "")
