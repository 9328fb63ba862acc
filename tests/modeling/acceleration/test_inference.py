"""Optimised models against the models they were made from."""

import copy
import pickle

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from oracles import upsample_plain
from small_models import tiny_cfg, untied

from panoptic_fpn_ext import model_zoo, optimize_for_inference
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import PanopticPredictor
from panoptic_fpn_ext.modeling.acceleration import winograd
from panoptic_fpn_ext.modeling.acceleration.winograd import ALGORITHMS, FastestConv2d
from panoptic_fpn_ext.structures import RawOutputs

RELEASED = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
EFFICIENTNET = ["MODEL.BACKBONE.NAME", "build_efficientnet_lite0_fpn_backbone"]
CASCADE = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
GROUP_NORM = ["MODEL.FPN.NORM", "GN", "MODEL.ROI_MASK_HEAD.NORM", "GN", "MODEL.ROI_BOX_HEAD.NORM", "GN"]
GROUP_NORM += ["MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_CONV", 2]
GROUP_NORM += ["MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.ROI_BOX_HEAD.CONV_DIM", 32]
BASIC_BLOCKS = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64, "MODEL.RESNETS.NORM", "BN"]
MODELS = {
    "bottleneck": [],
    "basic": BASIC_BLOCKS,
    "efficientnet": EFFICIENTNET,
    "cascade": [*CASCADE, *GROUP_NORM],
    "checkpointed": ["MODEL.BACKBONE.CHECKPOINT_ACTIVATIONS", True],
}


def _build(*options: object, architecture: str = "PanopticFPNExt") -> torch.nn.Module:
    cfg: CfgNode = tiny_cfg(architecture)
    cfg.merge_from_list([*options, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 20])
    torch.manual_seed(0)
    return untied(build_model(cfg).eval())


def _inputs(*sizes: tuple[int, int]) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, h, w, generator=generator) * 255 for h, w in sizes]
    return [{"image": x, "height": x.shape[1] - 7, "width": x.shape[2] + 9} for x in images]


@torch.no_grad()
def _raw(model: torch.nn.Module, inputs: list[dict]) -> RawOutputs:
    """Raw outputs; boxes and scores of given detections, since rounding can change which boxes suppress which."""
    return model.raw_outputs(inputs)


def _assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def _assert_same_raw_outputs(ours: RawOutputs, theirs: RawOutputs) -> None:
    assert ours.image_sizes == theirs.image_sizes
    _assert_close(ours.sem_seg_logits, theirs.sem_seg_logits)
    for one, other in zip(ours.instances, theirs.instances, strict=True):
        assert len(one) == len(other) > 0
        assert torch.equal(one.pred_classes, other.pred_classes)
        _assert_close(one.pred_boxes.tensor, other.pred_boxes.tensor)
        _assert_close(one.scores, other.scores)
        _assert_close(one.pred_masks, other.pred_masks)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return _build()


@pytest.mark.parametrize(
    ("name", "algorithm"), [(name, "winograd") for name in MODELS] + [("bottleneck", other) for other in ALGORITHMS]
)
def test_same_raw_outputs_whichever_algorithm_is_faster(name, algorithm, monkeypatch):
    original = _build(*MODELS[name])
    monkeypatch.setattr(winograd, "fastest_algorithm", lambda *_: algorithm)
    optimized = optimize_for_inference(original)
    for inputs in (_inputs((64, 96)), _inputs((64, 96), (90, 70))):
        _assert_same_raw_outputs(_raw(optimized, inputs), _raw(original, inputs))
    choices = next(m.choices for m in optimized.modules() if isinstance(m, FastestConv2d))
    assert set(choices.values()) == {algorithm}


@pytest.mark.parametrize("architecture", ["PanopticFPN", "GeneralizedRCNN"])
def test_models_of_detectron2(architecture):
    original = _build(architecture=architecture)
    inputs = _inputs((64, 96))
    with torch.no_grad():
        features, expected = (
            x.backbone(x.preprocess_image(inputs).tensor) for x in (optimize_for_inference(original), original)
        )
        ours, theirs = optimize_for_inference(original)(inputs)[0], original(inputs)[0]
    for name in features:
        _assert_close(features[name], expected[name])
    assert ours.keys() == theirs.keys()
    _assert_close(ours["instances"].scores, theirs["instances"].scores)


def test_interface_and_original_stay(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    inputs = _inputs((64, 96))
    optimized = optimize_for_inference(model, inputs)
    assert isinstance(optimized, type(model))
    assert (optimized.outputs, type(optimized.combiner)) == (model.outputs, type(model.combiner))
    assert not optimized.training
    assert next(m.choices for m in optimized.modules() if isinstance(m, FastestConv2d))
    with torch.no_grad():
        (prediction,) = optimized(inputs)
        raw = optimized.inference(inputs, do_postprocess=False)
    assert prediction.keys() == {"panoptic_seg", "instances", "sem_seg"}
    assert prediction["panoptic_seg"][0].shape == (57, 105)
    assert raw[0].has("pred_masks")
    assert kinds == [type(module) for module in model.modules()]
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.train().training
    model.eval()


def test_training_is_refused(model):
    optimized = optimize_for_inference(model)
    with pytest.raises(RuntimeError, match="cannot be trained"):
        optimized.train()
    assert not any(module.training for module in optimized.modules())
    assert optimized.eval() is optimized
    with pytest.raises(ValueError, match=r"call \.eval"):
        optimize_for_inference(copy.deepcopy(model).train())


def test_other_precisions_are_refused(model):
    with pytest.raises(ValueError, match=r"torch.float64 on cpu.*\.float\(\)\.cpu\(\)"):
        optimize_for_inference(copy.deepcopy(model).double())


def test_copies_and_pickles(model):
    optimized, inputs = optimize_for_inference(model), _inputs((64, 96))
    expected = _raw(optimized, inputs)
    for other in (copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized)), optimize_for_inference(optimized)):
        _assert_same_raw_outputs(_raw(other, inputs), expected)
        with pytest.raises(RuntimeError, match="cannot be trained"):
            other.train()


class _CountSegments(DatasetEvaluator):
    def reset(self):
        self.counts = []

    def process(self, inputs, outputs):
        self.counts += [len(output["panoptic_seg"][1]) for output in outputs]

    def evaluate(self):
        return {"counts": self.counts}


def test_evaluation_loops_of_detectron2(model):
    batches = [_inputs((64, 96)), _inputs((96, 64), (64, 64))]
    optimized = optimize_for_inference(model)
    assert len(inference_on_dataset(optimized, batches, _CountSegments())["counts"]) == 3


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> list[torch.Tensor]:
    """Three images of the embedded dataset, uint8 BGR (3, 160, 256)."""
    import cv2

    root = tmp_path_factory.mktemp("street")
    make_synthetic_street(str(root), StreetSettings(num_train=0, num_val=3))
    return [cv2.imread(str(path)) for path in sorted((root / "val").iterdir())]


def test_trained_network_gives_the_same_panoptic_maps(street, street_datasets, monkeypatch):
    monkeypatch.setattr(winograd, "fastest_algorithm", lambda *_: "winograd")
    cfg = model_zoo.get_config(RELEASED, trained=True)
    cfg.DATASETS.TEST = (street_datasets[1],)
    predictor = PanopticPredictor(cfg)
    inputs = [{"image": torch.from_numpy(x.transpose(2, 0, 1).copy()), "height": 160, "width": 256} for x in street]
    original, predictor.model = predictor.model, optimize_for_inference(predictor.model)
    with torch.no_grad():
        logits = original.raw_outputs(inputs).sem_seg_logits
        expected, batch = original(inputs), predictor.model(inputs)
        single = [predictor.model([one])[0] for one in inputs]
    assert predictor(street[0])["panoptic_seg"][0].shape == (160, 256)
    for found in (batch, single):
        for ours, theirs, raw in zip(found, expected, logits, strict=True):
            _assert_same_map(ours["panoptic_seg"], theirs["panoptic_seg"], raw)


def _assert_same_map(ours: tuple, theirs: tuple, logits: torch.Tensor) -> None:
    """Same segments; pixels may differ where the two best logits do not, and at the rims of instances."""
    names = [[(s["id"], s["isthing"], s["category_id"]) for s in segments] for _, segments in (ours, theirs)]
    assert names[0] == names[1]
    best = upsample_plain(logits, 4, (160, 256), (160, 256)).topk(2, dim=0).values
    is_clear = best[0] - best[1] > 1e-3 * logits.abs().max()
    is_stuff = theirs[0] >= next((s["id"] for s in theirs[1] if not s["isthing"]), 0)
    assert not ((ours[0] != theirs[0]) & is_clear & is_stuff).any()
    assert (ours[0] != theirs[0]).sum() <= 5
