"""Programs of detectron2, and of PyTorch around a model, that take this package's: one function each.

Each works on two images that are drawn in COCO's layout, with a narrow network of COCO's categories.
"""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_panoptic_separated
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES, _get_builtin_metadata
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from rows import WIDTH
from torch import nn

from panoptic_fpn_ext.data import PanopticDatasetMapper

__all__ = ["HOSTS", "Host", "Place", "prepare", "register_drawn"]

DATASET: Final = "coco_2017_val_100_panoptic_separated"
DRAWN: Final = "drawn_coco_panoptic_separated"
CONFIG: Final = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x"
SIZE: Final = (64, 96)
NARROW: Final = [
    *("MODEL.META_ARCHITECTURE", "PanopticFPNExt"),  # the one line; what follows makes it small
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "DATASETS.TRAIN", (DATASET,), "DATASETS.TEST", (DATASET,)),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.FPN.OUT_CHANNELS", WIDTH, "MODEL.ROI_BOX_HEAD.FC_DIM", WIDTH, "MODEL.ROI_MASK_HEAD.CONV_DIM", WIDTH),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", WIDTH, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 50),
    *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0),
    *("SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 1e-4, "TEST.DETECTIONS_PER_IMAGE", 10),
]
LAZY: Final = f"""
from detectron2 import model_zoo
from panoptic_fpn_ext import model_zoo as ours  # the import
from rows import narrow_lazy_model

cfg = model_zoo.get_config("{CONFIG}.py")
dataloader, lr_multiplier, optimizer, train = cfg.dataloader, cfg.lr_multiplier, cfg.optimizer, cfg.train
model = narrow_lazy_model(things=80, semantic_classes=54)  # ours.get_config("common/models/panoptic_fpn.py").model
dataloader.train.dataset.names = dataloader.test.dataset.names = "{DATASET}"
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.train.total_batch_size = train.max_iter = 2
train.init_checkpoint, train.device = "", "cpu"
"""


class Place(NamedTuple):
    """Where hosts work: a folder with the drawn images, and detectron2's own scripts, if they are there."""

    folder: Path
    detectron2: Path | None

    def config(self) -> CfgNode:
        """As detectron2's scripts read it."""
        cfg = get_cfg()
        cfg.merge_from_file(model_zoo.get_config_file(f"{CONFIG}.yaml"))
        cfg.merge_from_list([*NARROW, "OUTPUT_DIR", str(self.folder / "output"), "DATASETS.TEST", (DRAWN,)])
        return cfg

    def weights(self) -> str:
        """A checkpoint of the narrow network."""
        torch.manual_seed(0)
        DetectionCheckpointer(build_model(self.config()), str(self.folder)).save("weights")
        return str(self.folder / "weights.pth")

    def batch(self) -> list[dict[str, Any]]:
        """The images as the trainer gets them."""
        mapper = PanopticDatasetMapper(True, categories=None, augmentations=[])
        return [mapper(one) for one in DatasetCatalog.get(DRAWN)]


class Host(NamedTuple):
    """A program, how it is tried (an exception says that it does not work) and what it needs.

    ``script``: of detectron2's sources, which no package has. ``word``: what a user has to know.
    """

    name: str
    run: Callable[[Place], object]
    script: str = ""
    word: str = ""


def prepare(folder: Path) -> None:
    """Draw two images with an instance and a region each, in COCO's layout, under ``$DETECTRON2_DATASETS``."""
    coco = folder / "coco"
    for name in ("val2017", "panoptic_val2017_100", "panoptic_stuff_val2017_100", "annotations"):
        (coco / name).mkdir(parents=True, exist_ok=True)
    things, stuff = ([row["id"] for row in COCO_CATEGORIES if row["isthing"] == kind] for kind in (1, 0))
    generator, (height, width) = np.random.default_rng(0), SIZE
    images, instances, panoptic = [], [], []
    for number in (1, 2):
        name, ids = f"{number:012d}", np.full(SIZE, 2, np.uint8)
        ids[10:40, 10:50] = 1
        box = [10, 10, 40, 30]
        Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).save(coco / f"val2017/{name}.jpg")
        Image.fromarray(np.dstack([ids, ids * 0, ids * 0])).save(coco / f"panoptic_val2017_100/{name}.png")
        # detectron2's prepare_panoptic_fpn.py: 0 for things, stuff from 1 on.
        Image.fromarray((ids - 1) * np.uint8(number)).save(coco / f"panoptic_stuff_val2017_100/{name}.png")
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        common = {"image_id": number, "category_id": things[number], "iscrowd": 0, "area": 1200, "bbox": box}
        instances.append({**common, "id": number, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]})
        region = {"id": 2, "category_id": stuff[number - 1], "iscrowd": 0, "area": height * width - 1200}
        segments = [{**common, "id": 1}, {**region, "bbox": [0, 0, width, height]}]
        panoptic.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    for name, annotations in (("instances", instances), ("panoptic", panoptic)):
        content: dict[str, Any] = {"images": images, "annotations": annotations, "info": {}}
        content["categories"] = [c for c in COCO_CATEGORIES if c["isthing"] or name == "panoptic"]
        Path(coco, "annotations", f"{name}_val2017_100.json").write_text(json.dumps(content), encoding="utf-8")


# Releases up to 0.7 read labels with `np.array(..., copy=False)`, which NumPy 2 refuses, with any model.
_MEND: Final = """
import numpy, PIL.Image
from detectron2.evaluation import SemSegEvaluator
defaults = SemSegEvaluator.__init__.__kwdefaults__ or {}
if "sem_seg_loading_fn" in defaults and numpy.lib.NumpyVersion(numpy.__version__) >= "2.0.0":
    defaults["sem_seg_loading_fn"] = lambda name, dtype: numpy.asarray(PIL.Image.open(name), dtype)
"""
_NUMPY: Final = "`SemSegEvaluator` of releases up to 0.7 needs NumPy 1, with any model; the trial mends its reader"


def register_drawn(folder: Path) -> None:
    """Register the images of :func:`prepare` as ``DRAWN``, too: built-in names keep the folder they have at import."""
    coco, kind = folder / "coco", "val2017_100"
    register_coco_panoptic_separated(
        DRAWN.removesuffix("_separated"),
        _get_builtin_metadata("coco_panoptic_separated"),
        str(coco / "val2017"),
        str(coco / f"panoptic_{kind}"),
        str(coco / f"annotations/panoptic_{kind}.json"),
        str(coco / f"panoptic_stuff_{kind}"),
        str(coco / f"annotations/instances_{kind}.json"),
    )


def _script(name: str, *arguments: str) -> Callable[[Place], object]:
    """A script of detectron2, unchanged; the import is the line before it."""

    def run(place: Place) -> None:
        assert place.detectron2 is not None
        path = place.detectron2 / name
        code = f"{_MEND}import panoptic_fpn_ext, runpy; runpy.run_path({str(path)!r}, run_name='__main__')"
        options = [part.format(folder=place.folder, here=Path(__file__).parent) for part in arguments]
        environment = {**os.environ, "DETECTRON2_DATASETS": str(place.folder), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [*map(str, (path.parent, Path(__file__).parent)), os.environ.get("PYTHONPATH", "")]
        )
        done = subprocess.run([sys.executable, "-c", code, *options], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "--eval-only" in options or "model_final" in " ".join(os.listdir(place.folder / "output"))
        assert "PQ" in done.stdout + done.stderr, done.stdout[-2000:]

    return run


def _yaml_options() -> list[str]:
    options = [str(value) for value in [*NARROW, "OUTPUT_DIR", "{folder}/output"]]
    return ["--config-file", model_zoo.get_config_file(f"{CONFIG}.yaml"), *options]


def _lazy_script(place: Place) -> None:
    config = place.folder / "lazy.py"
    config.write_text(LAZY, encoding="utf-8")
    _script("tools/lazyconfig_train_net.py", "--config-file", str(config), f"train.output_dir={place.folder}/output")(
        place
    )


def _image() -> Any:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)


def _configured(place: Place) -> CfgNode:
    cfg = place.config()
    cfg.MODEL.WEIGHTS = place.weights()
    return cfg


def _default_predictor(place: Place) -> None:
    assert DefaultPredictor(_configured(place))(_image())["panoptic_seg"][0].shape == SIZE


def _demo(place: Place) -> Any:
    """detectron2's module ``demo/predictor.py``."""
    assert place.detectron2 is not None
    sys.path.insert(0, str(place.detectron2 / "demo"))
    try:
        import predictor

        return predictor
    finally:
        sys.path.pop(0)


def _visualization_demo(place: Place) -> None:
    predictions, drawn = _demo(place).VisualizationDemo(_configured(place)).run_on_image(_image())
    assert predictions["panoptic_seg"][0].shape == drawn.get_image().shape[:2] == SIZE


def _async_predictor(place: Place) -> None:
    """With a GPU all of it; else the process that it starts, which gets its device from it."""
    module, cfg = _demo(place), _configured(place)
    if torch.cuda.is_available():
        predictor = module.AsyncPredictor(cfg)
        found, stop = predictor(_image()), predictor.shutdown
    else:
        tasks, results = (module.mp.Queue() for _ in range(2))
        worker = module.AsyncPredictor._PredictWorker(cfg, tasks, results)
        worker.start()
        tasks.put((0, _image()))
        (_, found), stop = results.get(timeout=300), worker.terminate
    assert found["panoptic_seg"][0].shape == SIZE
    stop()


def _losses(model: nn.Module, place: Place) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with EventStorage():
        losses: dict[str, torch.Tensor] = model.train()(place.batch())
    torch.stack(list(losses.values())).sum().backward()
    return losses


def _same_losses(change: Callable[[nn.Module], nn.Module]) -> Callable[[Place], object]:
    """The changed model has the losses of the model, and a gradient everywhere."""

    def run(place: Place) -> None:
        torch.manual_seed(0)
        model = build_model(place.config())
        other = change(copy.deepcopy(model))
        expected, found = _losses(model, place), _losses(other, place)
        for name, loss in expected.items():
            torch.testing.assert_close(found[name].detach(), loss.detach(), rtol=1e-3, atol=1e-5)
        assert all(p.grad is not None for p in other.parameters() if p.requires_grad)

    return run


def _in_one_process(change: Callable[[nn.Module], nn.Module]) -> Callable[[Place], object]:
    """The same in a process group of one; what several do is tested elsewhere."""

    def run(place: Place) -> None:
        import torch.distributed as dist

        with ExitStack() as stack:
            dist.init_process_group("gloo", init_method=f"file://{place.folder}/rendezvous", rank=0, world_size=1)
            stack.callback(dist.destroy_process_group)
            stack.callback(Path(place.folder, "rendezvous").unlink, missing_ok=True)
            _same_losses(change)(place)

    return run


def _fsdp2(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    parts: Any = model
    for part in (parts.backbone, parts.roi_heads, parts.sem_seg_head):
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _compiled(model: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(model, backend="aot_eager")
    return compiled


HOSTS: Final = (
    Host("`tools/train_net.py`", _script("tools/train_net.py", *_yaml_options()), "tools", _NUMPY),
    Host("`tools/plain_train_net.py`", _script("tools/plain_train_net.py", *_yaml_options()), "tools", _NUMPY),
    Host(
        "`tools/lazyconfig_train_net.py`",
        _lazy_script,
        "tools",
        f'the model of `get_config("common/models/panoptic_fpn.py")`; {_NUMPY}',
    ),
    Host("`DefaultPredictor`", _default_predictor),
    Host("`VisualizationDemo`", _visualization_demo, "demo"),
    Host("`AsyncPredictor`", _async_predictor, "demo", "it always takes a GPU, with any model; here without"),
    Host("`copy.deepcopy`", _same_losses(copy.deepcopy)),
    Host("`pickle`", _same_losses(lambda model: pickle.loads(pickle.dumps(model)))),
    Host("channels last", _same_losses(lambda model: model.to(memory_format=torch.channels_last))),
    Host("`torch.compile`", _same_losses(_compiled)),
    Host(
        "`DistributedDataParallel`",
        _in_one_process(lambda model: nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)),
    ),
    Host("FSDP2 (`fully_shard`)", _in_one_process(_fsdp2)),
)
"""From top to bottom."""
