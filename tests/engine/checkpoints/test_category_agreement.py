"""Category lists that meet: their order never matters, differences are named, and no figure is silently wrong."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input_data import TinyDataset, global_state_restored, project_script, train_net, train_net_args
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data import dataset_categories, register_coco_panoptic
from panoptic_fpn_ext.data.panoptic_catalog import adopt_categories, listed_categories
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import PanopticCheckpointer, PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config
from panoptic_fpn_ext.engine.lazy_training import build_lazy_model, evaluate_lazily
from panoptic_fpn_ext.engine.setup import load_config

STREET = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
Change = Callable[[dict[str, Any]], None]

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two validation images of the street."""
    root = tmp_path_factory.mktemp("data") / "street"
    make_synthetic_street(str(root), StreetSettings(num_train=0, num_val=2))
    return root


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return model_zoo.get(STREET, trained=True, device="cpu")


def _reversed(content: dict[str, Any]) -> None:
    content["categories"].reverse()


def _shuffled(content: dict[str, Any]) -> None:
    content["categories"].sort(key=lambda c: c["name"])


def _only_used(content: dict[str, Any]) -> None:
    used = {s["category_id"] for a in content["annotations"] for s in a["segments_info"]}
    content["categories"] = [c for c in content["categories"] if c["id"] in used]


def _category(content: dict[str, Any], name: str) -> dict[str, Any]:
    (category,) = (c for c in content["categories"] if c["name"] == name)
    return category


def _renamed(content: dict[str, Any]) -> None:
    _category(content, "car")["name"] = "truck"


def _swapped_names(content: dict[str, Any]) -> None:
    car, bus = _category(content, "car"), _category(content, "bus")
    car["name"], bus["name"] = "bus", "car"


def _other_kind(content: dict[str, Any]) -> None:
    _category(content, "fence")["isthing"] = 1


def _renumbered(content: dict[str, Any]) -> None:
    ids = {c["id"]: number for number, c in enumerate(content["categories"], start=1)}
    for row in content["categories"]:
        row["id"] = ids[row["id"]]
    for segment in (s for a in content["annotations"] for s in a["segments_info"]):
        segment["category_id"] = ids[segment["category_id"]]


def _one_more(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 200, "name": "tram", "isthing": 1})


def _registration(streets: Path, name: str, change: "Change | None" = None) -> list[str]:
    """Arguments of ``--register`` for the streets with a JSON that was changed."""
    path = streets / "annotations" / f"{name}.json"
    content = json.loads((streets / "annotations" / "panoptic_val.json").read_text())
    if change is not None:
        change(content)
    path.write_text(json.dumps(content))
    return [name, str(streets / "val"), str(streets / "panoptic_val"), str(path)]


def _yacs(registration: list[str], output: Path) -> dict[str, Any]:
    """As ``train_net.py --eval-only`` with a name of the zoo."""
    opts = ["DATASETS.TEST", f"('{registration[0]}',)", "OUTPUT_DIR", str(output), "MODEL.DEVICE", "cpu"]
    cfg = load_config(STREET, [*opts, "DATALOADER.NUM_WORKERS", "0"], [registration], eval_only=True)
    return Trainer.test(cfg, _model_of(cfg))


def _model_of(cfg: CfgNode) -> torch.nn.Module:
    model = Trainer.build_model(cfg)
    PanopticCheckpointer(model, complete=True).load(cfg.MODEL.WEIGHTS)
    return model


@pytest.fixture(scope="module")
def expected(streets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results with the JSON as it is."""
    with global_state_restored():
        results = _yacs(_registration(streets, "street_sound"), tmp_path_factory.mktemp("output"))
    assert results["panoptic_seg"]["PQ"] > 80 and results["segm"]["AP"] > 60
    return results


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert set(found) == set(expected)
    for task, figures in expected.items():
        assert set(found[task]) == set(figures)
        for key, value in figures.items():
            assert found[task][key] == pytest.approx(value, abs=1e-9, nan_ok=True), (task, key)


@pytest.mark.parametrize("change", [_reversed, _shuffled, _only_used])
def test_released_model_has_the_same_figures_whatever_the_list(
    streets: Path, tmp_path: Path, expected: dict[str, Any], change: Change
):
    """PQ, mIoU and AP, all and by category: with ids in the JSON's order PQ was a tenth."""
    registration = _registration(streets, f"street{change.__name__}", change)
    _assert_same(_yacs(registration, tmp_path), expected)


@pytest.mark.parametrize("change", [_shuffled, _only_used])
def test_released_model_by_its_lazy_config(streets: Path, tmp_path: Path, expected: dict[str, Any], change: Change):
    registration = _registration(streets, f"lazy_street{change.__name__}", change)
    overrides = [
        f"dataloader.test.dataset.names={registration[0]}",
        f"train.output_dir={tmp_path}",
        "train.device=cpu",
        "dataloader.test.num_workers=0",
    ]
    cfg = load_lazy_config(f"{STREET}.py", overrides, [registration], eval_only=True)
    model = build_lazy_model(cfg)
    PanopticCheckpointer(model, complete=True).load(cfg.train.init_checkpoint)
    _assert_same(evaluate_lazily(cfg, model), expected)


MISTAKES = [
    (_renamed, r"3 'car' \(thing\) is 'truck' \(thing\) there"),
    (_swapped_names, r"3 'car' \(thing\) is 'bus' \(thing\) there, 6 'bus' \(thing\) is 'car'"),
    (_other_kind, r"185 'fence' \(stuff\) is 'fence' \(thing\) there"),
    (_renumbered, r"the same name with another id: 'traffic sign' 13 and 4, 'road' 149 and 5"),
    (_one_more, r"only in dataset 'street_one_more' \(.*street_one_more\.json\): 200 'tram' \(thing\)"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=lambda x: getattr(x, "__name__", ""))
def test_other_categories_are_named_before_a_figure_is_made(
    streets: Path, tmp_path: Path, model: torch.nn.Module, change: Change, message: str
):
    registration = _registration(streets, f"street{change.__name__}", change)
    with pytest.raises(ValueError, match=rf"(?s)checkpoint .*R_18_narrow_\w+\.pth and .* differ:.*{message}"):
        _yacs(registration, tmp_path)
    with pytest.raises(ValueError, match=rf"(?s)differ:.*{message}"):  # without a config that was loaded for it
        cfg = model_zoo.get_config(STREET)
        cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (registration[0],), str(tmp_path)
        Trainer.test(cfg, model)
    with pytest.raises(ValueError, match=rf"(?s)differ:.*{message}"):
        overrides = [f"dataloader.test.dataset.names={registration[0]}", "train.device=cpu"]
        load_lazy_config(f"{STREET}.py", overrides, [registration], eval_only=True)
    with pytest.raises(ValueError, match=rf"(?s)differ:.*{message}"):
        cfg = model_zoo.get_config(STREET, trained=True)
        cfg.DATASETS.TEST, cfg.MODEL.DEVICE = (registration[0],), "cpu"
        PanopticPredictor(cfg)


# -- training ---------------------------------------------------------------------------------------------------------


def _with_categories(root: Path, order: "list[int] | None" = None, **changes: Any) -> TinyDataset:
    """A tiny dataset with its categories in another order, and some changed: ``id_4={"name": …}``."""
    dataset = TinyDataset(root)
    rows = {row["id"]: dict(row) for row in dataset.content["categories"]}
    for key, change in changes.items():
        id_ = int(key.removeprefix("id_"))
        rows[id_] = None if change is None else {**rows.get(id_, {"id": id_}), **change}
    dataset.content["categories"] = [rows[id_] for id_ in order or rows if rows[id_] is not None]
    dataset.save()
    return dataset


def _last_metrics(output: Path) -> dict[str, float]:
    """The evaluation's figures."""
    content: dict[str, float] = json.loads((output / "metrics.json").read_text().splitlines()[-1])
    return {key: value for key, value in content.items() if "/" in key}


def test_training_does_not_depend_on_the_order_of_the_list(tmp_path: Path):
    weights, figures = {}, {}
    for name, order in (("sound", None), ("mixed", [9, 4, 7, 1])):
        output = tmp_path / name / "output"
        train_net(_with_categories(tmp_path / name, order), f"tiny_{name}", output)
        content = torch.load(output / "model_final.pth", weights_only=True)
        record = content["panoptic_categories"]
        assert [row["id"] for row in record["categories"]] == [1, 4, 7, 9]
        assert record["sem_seg_space"] == "things_as_other"
        weights[name] = content["model"]
        figures[name] = {key.replace(f"/tiny_{name}/", "/"): value for key, value in _last_metrics(output).items()}
    assert all(torch.equal(value, weights["mixed"][key]) for key, value in weights["sound"].items())
    assert "panoptic_seg/PQ" in figures["sound"]
    assert figures["mixed"] == pytest.approx(figures["sound"], abs=1e-9, nan_ok=True)


def _train_with_two(first: TinyDataset, second: TinyDataset, output: Path, test: TinyDataset, *opts: str) -> Any:
    extra = ["DATASETS.TRAIN", "('tiny_a','tiny_b')", "DATASETS.TEST", "('tiny_c',)", *opts]
    args = train_net_args(first, "tiny_a", output, *extra)
    args.register += [second.registration("tiny_b"), test.registration("tiny_c")]
    return project_script("panoptic_fpn/train_net.py").main(args)


def test_training_sets_may_list_their_categories_differently(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    less = _with_categories(tmp_path / "less")
    more = _with_categories(tmp_path / "more", [9, 12, 7, 4, 1], id_12={"name": "snow", "isthing": 0})
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD\.NUM_CLASSES is 3: set it to 4"):
        _train_with_two(less, more, tmp_path / "output", less)
    _train_with_two(less, more, tmp_path / "output", less, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4")
    figures = _last_metrics(tmp_path / "output")
    assert math.isfinite(figures["panoptic_seg/PQ"]) and "sem_seg/IoU-snow" in figures
    assert "Dataset 'tiny_a' (" in caplog.text and "does not list 12 'snow'" in caplog.text


@pytest.mark.parametrize("place", ["train", "test"])
def test_categories_that_contradict_each_other_are_refused(tmp_path: Path, place: str):
    sound = _with_categories(tmp_path / "a")
    other = _with_categories(tmp_path / "b", id_4={"name": "crate"}, id_7={"isthing": 1})
    message = r"(?s)dataset 'tiny_a' \(.*\) and dataset 'tiny_(b|c)' \(.*\) differ:.*'box' \(thing\) is 'crate'"
    with pytest.raises(ValueError, match=message):
        _train_with_two(sound, other if place == "train" else sound, tmp_path / "output", other)


def test_a_run_goes_on_with_its_categories_only(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data")
    train_net(dataset, "tiny_resumed", tmp_path / "output")
    for name in ("tiny_resumed",):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    dataset.content["categories"] = [{**c, "name": c["name"] + "s"} for c in dataset.content["categories"]]
    dataset.save()
    with pytest.raises(ValueError, match=r"(?s)1 'ball' \(thing\) is 'balls'.*A run goes on with the categories"):
        train_net(dataset, "tiny_resumed", tmp_path / "output", "--resume")


def test_adopted_categories_can_be_given_back(tmp_path: Path):
    dataset = _with_categories(tmp_path / "data", [1, 4, 7, 9])
    register_coco_panoptic(*dataset.registration("tiny_adopting"))
    own, before = dataset_categories("tiny_adopting"), DatasetCatalog.get("tiny_adopting")
    more = PanopticCategories([*own.rows, {"id": 2, "name": "bat", "isthing": 1}], "all_classes")
    assert adopt_categories("tiny_adopting", more) and not adopt_categories("tiny_adopting", more)
    assert dataset_categories("tiny_adopting") == more
    assert listed_categories("tiny_adopting") == own
    for record, old in zip(DatasetCatalog.get("tiny_adopting"), before, strict=True):
        for now, then in zip(record["segments_info"], old["segments_info"], strict=True):
            same = more.dataset_id(now["category_id"], now["isthing"])
            assert same == own.dataset_id(then["category_id"], then["isthing"])
    register_coco_panoptic(*dataset.registration("tiny_adopting"))  # again, which is harmless
    assert dataset_categories("tiny_adopting") == more
    adopt_categories("tiny_adopting", own)
    assert DatasetCatalog.get("tiny_adopting") == before
    assert dataset_categories("tiny_adopting") == own
