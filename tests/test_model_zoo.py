import shutil
from pathlib import Path

import pytest
import torch
from config_files import COCO, names
from detectron2 import model_zoo as detectron2_zoo
from detectron2.config import CfgNode
from detectron2.utils.file_io import Detectron2Handler

from panoptic_fpn_ext import model_zoo, zoo_files
from panoptic_fpn_ext.categories import PanopticCategories
from panoptic_fpn_ext.data.street.categories import categories
from panoptic_fpn_ext.data.synthetic_street import StreetSettings, make_synthetic_street
from panoptic_fpn_ext.engine import Trainer
from panoptic_fpn_ext.engine.checkpoints.model_files import find_model
from panoptic_fpn_ext.model_zoo import __main__ as command
from panoptic_fpn_ext.model_zoo.configs import recipe

NAME = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
STREETS = NAME, "SyntheticStreet-PanopticSegmentation/panoptic_fpn_efficientnet_lite0"
FACADE = "Facade-PanopticSegmentation/panoptic_fpn_efficientnet_lite2"
# Files and figures as detectron2's MODEL_ZOO.md states them.
PUBLISHED_BY_DETECTRON2 = {
    "panoptic_fpn_R_50_1x": (
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x/139514544/model_final_dbfeb4.pkl",
        {"PQ": 39.4, "box AP": 37.6, "mask AP": 34.7},
    ),
    "panoptic_fpn_R_50_3x": (
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl",
        {"PQ": 41.5, "box AP": 40.0, "mask AP": 36.5},
    ),
    "panoptic_fpn_R_101_3x": (
        "COCO-PanopticSegmentation/panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl",
        {"PQ": 43.0, "box AP": 42.4, "mask AP": 38.5},
    ),
    "panoptic_fpn_R_101_dconv_cascade_gn_3x": (
        "Misc/panoptic_fpn_R_101_dconv_cascade_gn_3x/139797668/model_final_be35db.pkl",
        {"PQ": 46.1, "box AP": 47.4, "mask AP": 41.3},
    ),
    "mask_rcnn_R_50_FPN_1x": (
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x/137260431/model_final_a54504.pkl",
        {"box AP": 38.6, "mask AP": 35.2},
    ),
}


def test_config_by_name():
    same = model_zoo.get_config_file(NAME)
    assert model_zoo.get_config_file(f"{NAME}.yaml") == same
    cfg = model_zoo.get_config(NAME)
    assert isinstance(cfg, CfgNode)
    assert cfg.MODEL.META_ARCHITECTURE == "PanopticFPNExt"
    assert model_zoo.get_checkpoint(NAME) == model_zoo.get_config(NAME, trained=True).MODEL.WEIGHTS


def test_unknown_names_say_what_there_is():
    with pytest.raises(KeyError, match="panoptic_fpn_R_18_narrow"):
        model_zoo.get_config_file("no/such")
    with pytest.raises(KeyError, match="panoptic_fpn_R_18_narrow"):
        model_zoo.get_checkpoint(f"{NAME}_demo")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("panoptic_fpn_R_50_3x", " Did you mean COCO-PanopticSegmentation/panoptic_fpn_R_50_3x?"),
        (
            "COCO-PanopticSegmentation/panoptic_fpn_R50_3x.yaml",
            " Did you mean COCO-PanopticSegmentation/panoptic_fpn_R_5",
        ),
        (
            "Facade/panoptic_fpn_efficientnet_lite2.yaml",
            " Did you mean Facade-PanopticSegmentation/panoptic_fpn_efficientnet_lite2 or User-PanopticSegmentation/",
        ),
        ("nosuch", ""),
    ],
)
def test_a_name_that_is_nearly_right(typed, meant):
    for function, error in ((model_zoo.get_checkpoint, KeyError), (find_model, FileNotFoundError)):
        with pytest.raises(error) as caught:
            function(typed)
        assert meant in str(caught.value) and ("Did you mean" in str(caught.value)) == bool(meant)


def test_lazy_config_by_name():
    name = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py"
    assert model_zoo.get_config_file(name).endswith(name)
    assert model_zoo.get_config_file(name.removesuffix(".py")).endswith(".yaml")
    assert model_zoo.get_config(name).train.init_checkpoint.endswith("R-50.pkl")
    assert model_zoo.get_config(name, trained=True).train.init_checkpoint == model_zoo.get_checkpoint(name)


def test_every_config_is_known():
    known = model_zoo.config_names()
    assert set(known) == {*names("*.yaml"), *names("*-PanopticSegmentation/*.py")}
    assert all(Path(model_zoo.get_config_file(name)).is_file() for name in known)


def test_table_has_one_schema():
    for name, entry in model_zoo.published().items():
        assert entry.keys() >= zoo_files.Entry.__required_keys__, name
        assert entry.keys() <= zoo_files.Entry.__required_keys__ | zoo_files.Entry.__optional_keys__, name
        assert f"{name}.yaml" in model_zoo.config_names()
        assert all(0 < value < 100 for value in entry["metrics"].values())


@pytest.mark.parametrize("name", [*STREETS, FACADE, f"{FACADE}_trainval"])
def test_configs_are_those_that_trained_the_released_weights(name):
    """A change of a base is one of every config on it; these then say themselves what they were trained with."""
    assert recipe(name) == model_zoo.published()[name]["recipe"]


@pytest.mark.parametrize("name", PUBLISHED_BY_DETECTRON2)
def test_detectron2s_weights(name):
    file, metrics = PUBLISHED_BY_DETECTRON2[name]
    entry = model_zoo.published()[f"{COCO}/{name}"]
    assert entry["metrics"] == metrics
    assert model_zoo.get_checkpoint(f"{COCO}/{name}.yaml") == entry["file"] == f"detectron2://{file}"
    url = Detectron2Handler.S3_DETECTRON2_PREFIX + file
    # As detectron2 knows them by its own configs.
    assert url == detectron2_zoo.get_checkpoint_url(f"{file.rsplit('/', 2)[0]}.yaml")


@pytest.mark.parametrize("name", ["panoptic_fpn_R_101_1x", "semantic_fpn_R_50_1x", "separate_R_50_FPN_x2_1x"])
def test_configs_without_weights_say_so(name, capsys):
    with pytest.raises(KeyError, match=r"no published weights.*panoptic_fpn_R_50_1x"):
        model_zoo.get_config(f"{COCO}/{name}", trained=True)
    command.main([])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if f"/{name} " in line)
    assert "no published weights" in row


def test_list_has_every_config_and_its_weights(capsys):
    command.main([])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == [name.removesuffix(".yaml") for name in names("*.yaml")]
    assert all(any(entry["file"] in row for row in rows) for entry in model_zoo.published().values())


def test_command_prints_where_weights_are(capsys):
    command.main([NAME])
    assert capsys.readouterr().out.strip() == model_zoo.get_checkpoint(NAME)
    for name in ("no/such", "", "../README.md"):
        with pytest.raises(KeyError, match="There is no config"):
            command.main([name])


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    """As where the network lets nothing through."""
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"https://\S+/model_final_a54504\.pkl.*MODEL\.WEIGHTS"):
        model_zoo.get(f"{COCO}/mask_rcnn_R_50_FPN_1x", trained=True, device="cpu")


def test_released_files_are_small_and_whole(tmp_path, monkeypatch):
    for name, entry in model_zoo.published().items():
        if "://" not in entry["file"]:
            assert Path(model_zoo.get_checkpoint(name)).stat().st_size <= 25e6
    folder = shutil.copytree(zoo_files.CHECKPOINTS, tmp_path / "checkpoints")
    with open(folder / model_zoo.published()[NAME]["file"], "ab") as f:
        f.write(b"more")
    monkeypatch.setattr(zoo_files, "CHECKPOINTS", folder)
    with pytest.raises(ValueError, match="damaged"):
        model_zoo.get_checkpoint(NAME)


@pytest.mark.parametrize("name", STREETS)
def test_released_weights_know_their_categories(name):
    content = torch.load(model_zoo.get_checkpoint(name), weights_only=True)
    record = content["panoptic_categories"]
    assert record["sem_seg_space"] == "things_as_other"
    assert PanopticCategories(record["categories"]) == PanopticCategories(categories())


def test_weights_to_start_from_that_have_to_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"imagenet_weights output/efficientnet_lite0\.pth"):
        model_zoo.get(STREETS[1], device="cpu")


@pytest.mark.parametrize("name", STREETS)
def test_model_by_name(name):
    model = model_zoo.get(name, trained=True, device="cpu")
    released = torch.load(model_zoo.get_checkpoint(name), weights_only=True)["model"]
    state = model.state_dict()
    assert set(released) == set(state)
    assert all(torch.equal(released[key].to(value.dtype), value) for key, value in state.items())


def test_lazy_model_by_name():
    """The lazy twin has the weights of its YAML config."""
    models = [model_zoo.get(f"{NAME}{ending}", trained=True, device="cpu").state_dict() for ending in (".yaml", ".py")]
    assert list(models[0]) == list(models[1])
    assert all(torch.equal(value, models[1][key]) for key, value in models[0].items())


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """The embedded dataset without its training images."""
    folder = tmp_path_factory.mktemp("street")
    make_synthetic_street(str(folder), StreetSettings(num_train=0))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("released", STREETS)
def test_evaluation_gives_the_recorded_figures(released, street, tmp_path, register):
    """Evaluates the released checkpoint on all 100 validation images."""
    paths = ("val", "panoptic_val", "annotations/panoptic_val.json")
    name = register("whole_street_val", *(street / path for path in paths))
    cfg = model_zoo.get_config(released, trained=True)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(tmp_path / "output")
    cfg.DATASETS.TEST = (name,)
    model = model_zoo.get(released, trained=True, device="cpu")
    results = Trainer.test(cfg, model)
    recorded = model_zoo.published()[released]["metrics"]
    assert recorded["PQ"] >= 75
    for key in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"):
        assert results["panoptic_seg"][key] == pytest.approx(recorded[key], abs=0.1), key
