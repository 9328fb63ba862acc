"""Programs of detectron2, and of PyTorch around a model, that take this package's: one function each.

Each works on two images that are drawn in COCO's layout, with a narrow network of COCO's categories.
"""

import copy
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
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from place import CONFIG, LAZY, NARROW, SIZE, Place
from torch import nn

__all__ = ["HOSTS", "Host"]


class Host(NamedTuple):
    """A program, how it is tried (an exception says that it does not work) and what it needs.

    ``script``: of detectron2's sources, which no package has. ``word``: what a user has to know.
    """

    name: str
    run: Callable[[Place], object]
    script: str = ""
    word: str = ""


# Releases up to 0.7 read labels with `np.array(..., copy=False)`, which NumPy 2 refuses, with any model.
_MEND: Final = """
import numpy, PIL.Image
from detectron2.evaluation import SemSegEvaluator
defaults = SemSegEvaluator.__init__.__kwdefaults__ or {}
if "sem_seg_loading_fn" in defaults and numpy.lib.NumpyVersion(numpy.__version__) >= "2.0.0":
    defaults["sem_seg_loading_fn"] = lambda name, dtype: numpy.asarray(PIL.Image.open(name), dtype)
"""
_NUMPY: Final = "`SemSegEvaluator` of releases up to 0.7 needs NumPy 1, with any model; the trial mends its reader"


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
