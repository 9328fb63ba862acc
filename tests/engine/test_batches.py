"""Several images at once: any mix of sizes, the results that each has alone, and no image lost."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from PIL import Image

from panoptic_fpn_ext.engine import FailedImagesError, PanopticPredictor

SIZES = [(64, 96), (64, 96), (96, 64), (40, 90), (64, 96), (64, 90), (33, 47), (64, 96)]


@pytest.fixture
def predictor(tiny_cfg: CfgNode, tmp_path: Path) -> PanopticPredictor:
    model = build_model(tiny_cfg)
    DetectionCheckpointer(model, str(tmp_path)).save("weights")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    tiny_cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.1
    return PanopticPredictor(tiny_cfg)


def _images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def _batches(predictor: PanopticPredictor, monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """Fills with the sizes of each batch that the network gets."""
    seen, preprocess = [], predictor.model.preprocess_image

    def record(inputs: list[dict]) -> ImageList:
        images = preprocess(inputs)
        seen.append([tuple(images.tensor.shape[-2:])] * len(inputs))
        return images

    monkeypatch.setattr(predictor.model, "preprocess_image", record)
    return seen


def test_any_mix_of_sizes_has_the_results_of_each_image_alone(predictor, monkeypatch):
    images = _images()
    expected = [predictor(image) for image in images]
    batches = _batches(predictor, monkeypatch)
    predictor.batch_size = 3
    found = predictor(images)
    assert max(map(len, batches)) == 3 and sum(map(len, batches)) == len(images)
    for one, alone, size in zip(found, expected, SIZES, strict=True):
        assert one["sem_seg"].shape[1:] == one["panoptic_seg"][0].shape == size
        torch.testing.assert_close(one["sem_seg"], alone["sem_seg"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one["panoptic_seg"][0] > 0, alone["panoptic_seg"][0] > 0)


def test_a_batch_pads_as_one_image_does(predictor, monkeypatch):
    batches = _batches(predictor, monkeypatch)
    for image in (images := _images()):
        predictor(image)
    alone = sorted(size for batch in batches for size in batch)
    batches.clear()
    list(predictor.stream(images, batch_size=4))
    assert sorted(size for batch in batches for size in batch) == alone
    assert len(batches) < len(images)


def test_failing_images_do_not_take_their_batch_with_them(predictor, monkeypatch, tmp_path):
    images = [*_images(), tmp_path / "missing.jpg"]
    forward = predictor.model.forward

    def fragile(inputs: list[dict]) -> list[dict]:
        if any(torch.equal(one["image"][0, 0, :3], bad) for one in inputs):
            raise RuntimeError("out of memory")
        return forward(inputs)

    bad = predictor._prepare(images[4])["image"][0, 0, :3].clone()
    monkeypatch.setattr(predictor.model, "forward", fragile)
    predictor.batch_size = 4
    with pytest.raises(FailedImagesError) as caught:
        predictor(images)
    assert set(caught.value.errors) == {4, 8}
    assert [output is None for output in caught.value.outputs] == [index in (4, 8) for index in range(9)]


def test_reading_goes_on_while_the_network_predicts(predictor, monkeypatch):
    """The second image is read by another thread before the first is done."""
    read, forward = threading.Event(), predictor.model.forward
    prepare, main = predictor._prepare, threading.current_thread()

    def prepared(image: np.ndarray) -> dict:
        assert threading.current_thread() is not main
        if image.shape == (96, 64, 3):
            read.set()
        return prepare(image)

    def waits(inputs: list[dict]) -> list[dict]:
        assert read.wait(10)
        return forward(inputs)

    monkeypatch.setattr(predictor, "_prepare", prepared)
    monkeypatch.setattr(predictor.model, "forward", waits)
    assert [one.number for one in predictor.stream(_images()[1:3])] == [0, 1]


def test_few_images_are_held_at_a_time(predictor, tmp_path):
    taken = []

    def many():
        for number in range(40):
            taken.append(number)
            yield np.zeros((16 + number, 32, 3), np.uint8)

    stream = predictor.stream(many(), batch_size=2)
    next(stream)
    assert len(taken) < 20
    stream.close()
    with pytest.raises(ValueError, match="batch_size"):
        next(predictor.stream([], batch_size=0))


def test_pillows_images_and_paths_too(predictor, tmp_path):
    Image.fromarray(_images()[0]).save(tmp_path / "one.png")
    found = predictor([tmp_path / "one.png", Image.open(tmp_path / "one.png"), str(tmp_path / "one.png")])
    assert len(found) == 3 and all(torch.equal(one["sem_seg"], found[0]["sem_seg"]) for one in found)
