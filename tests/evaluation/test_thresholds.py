"""Recounted thresholds are those of real evaluations; the command writes the best as a config."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from oracles_pq import draw, segment, write_coco

from panoptic_fpn_ext import model_zoo
from panoptic_fpn_ext.engine import PanopticPredictor, Trainer
from panoptic_fpn_ext.engine.setup import read_config
from panoptic_fpn_ext.evaluation import PanopticQualityEvaluator
from panoptic_fpn_ext.evaluation.errors import CAUSES
from panoptic_fpn_ext.evaluation.errors.records import ErrorRecords
from panoptic_fpn_ext.evaluation.ground_truth import GroundTruth
from panoptic_fpn_ext.evaluation.model_ids import ModelIds
from panoptic_fpn_ext.report.thresholds import thresholds_section
from panoptic_fpn_ext.thresholds import CombinerInputs, Grid, ThresholdCounts, record, recount
from panoptic_fpn_ext.thresholds.__main__ import _key, main
from panoptic_fpn_ext.thresholds.explain import explain

STREET = "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow"
GRID = Grid((0.0, 0.5), (0.1, 0.5, 0.9), (0.0, 900.0))


@pytest.fixture
def cfg(street_datasets: tuple[str, str], tmp_path: Path) -> CfgNode:
    """The released model, on small images."""
    cfg = read_config(model_zoo.get_config_file(STREET), [])
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = model_zoo.get_checkpoint(STREET), "cpu"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = street_datasets[:1], street_datasets[1:]
    cfg.INPUT.MIN_SIZE_TEST, cfg.DATALOADER.NUM_WORKERS = 128, 0
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    return cfg


def test_every_setting_is_what_an_evaluation_with_it_gives(cfg: CfgNode, tmp_path: Path):
    model = PanopticPredictor(cfg).model
    name = cfg.DATASETS.TEST[0]
    loader = Trainer.build_test_loader(cfg, name)
    combiner = model.combiner
    stored = list(record(model, loader, str(tmp_path), min(GRID.score)))
    assert model.combiner is combiner
    metadata = MetadataCatalog.get(name)
    truth = GroundTruth(metadata.panoptic_json, metadata.panoptic_root)
    counts = ThresholdCounts(GRID, truth.categories)
    for image_id, path in stored:
        position = truth.position(image_id)
        recount(counts, CombinerInputs.load(path), truth, position, ModelIds(metadata), combiner.thing_sem_seg_ids)
    found = counts.pq()
    assert len(np.unique(found)) > 4  # the thresholds matter here
    evaluator = PanopticQualityEvaluator(name)
    for at in itertools.product(*(range(len(values)) for values in GRID)):
        combiner.overlap_threshold, combiner.instance_score_threshold, combiner.stuff_area_threshold = (
            values[index] for values, index in zip(GRID, at, strict=True)
        )
        assert found[at] == pytest.approx(
            inference_on_dataset(model, loader, evaluator)["panoptic_seg"]["PQ"], abs=1e-9
        )


def test_command_finds_the_best_setting_and_infers_once(
    cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config, output = tmp_path / "config.yaml", tmp_path / "out"
    cfg.DATASETS.TRAIN = ("of_another_machine",)
    config.write_text(cfg.dump())
    command = [str(config), cfg.MODEL.WEIGHTS, str(output), "--scores", "0.1", "0.3", "--areas", "0", "100"]
    main([*command, "--overlaps", "0.2"])
    content = json.loads((output / "thresholds.json").read_text())
    assert len(content["settings"]) == 2 * 3 * 3
    best = max(content["settings"], key=lambda row: row["PQ"])
    chosen = CfgNode.load_cfg((output / "best.yaml").read_text()).MODEL.PANOPTIC_FPN.COMBINE
    row = next(r for r in content["settings"] if all(r[k] == content["best"][k] for k in ("overlap", "score", "area")))
    assert row["PQ"] == best["PQ"]
    assert (row["overlap"], row["score"]) == (chosen.OVERLAP_THRESH, chosen.INSTANCES_CONFIDENCE_THRESH)
    assert row["area"] == chosen.STUFF_AREA_LIMIT
    assert "Best of 18" in capsys.readouterr().out
    section = thresholds_section(str(output / "thresholds.json"))
    labels = [[float(label) for label in chart.labels] for chart in section.charts()]
    assert labels == [content["grid"][key] for key in GRID._fields]
    assert max(section.charts()[0].series[0].values) == pytest.approx(best["PQ"])
    assert section.tables()[0].records()[0]["PQ"] == best["PQ"]
    assert "threshold-overlap" in (output / "thresholds.html").read_text()
    (output / "thresholds.json").write_text(json.dumps({**content, "best": {}}))
    with pytest.raises(ValueError, match=r"thresholds\.json is not what python -m panoptic_fpn_ext.thresholds writes"):
        thresholds_section(str(output / "thresholds.json"))

    name = cfg.DATASETS.TEST[0]
    dicts = DatasetCatalog.get(name)
    assert _key(cfg, name, dicts[1:], 0.1) != _key(cfg, name, dicts, 0.1)  # other images under the same name
    monkeypatch.setattr("panoptic_fpn_ext.thresholds.__main__.record", lambda *_: pytest.fail("inferred again"))
    main([*command, "--overlaps", "0.3", "--category", "road", "--errors", str(output / "errors.json")])
    assert "PQ of road" in capsys.readouterr().out
    errors = json.loads((output / "errors.json").read_text())
    row = next(
        r for r in content["settings"] if all(r[k] == content["config"][k] for k in ("overlap", "score", "area"))
    )
    assert errors["All"]["pq"] == pytest.approx(row["PQ"])
    assert sum(errors["All"]["costs"].values()) == pytest.approx(100 - row["PQ"])
    with pytest.raises(ValueError, match=r"no category 'rod'; it has .*road"):
        main([*command, "--category", "rod"])
    for option, words in {
        "--overlaps 50": "a number from 0 to 1, not 50",
        "--areas inf": "of at least 0, not inf",
    }.items():
        with pytest.raises(SystemExit):
            main([*command, *option.split()])
        assert words in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"DATASETS\.TEST is \(\): name a panoptic dataset"):
        main([*command, "--opts", "DATASETS.TEST", "()"])


def test_weights_may_lie_elsewhere(cfg: CfgNode):
    name = cfg.DATASETS.TEST[0]
    dicts, keys = DatasetCatalog.get(name), set()
    for url in ("detectron2://a.pkl", "detectron2://b.pkl"):
        cfg.MODEL.WEIGHTS = url
        keys.add(_key(cfg, name, dicts, 0.1))
    assert len(keys) == 2


def test_an_interrupted_pass_goes_on(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, output = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(cfg.dump())
    command = [str(config), cfg.MODEL.WEIGHTS, str(output), "--scores", "0.1", "--areas", "0", "--overlaps", "0.2"]
    main(command)
    expected = json.loads((output / "thresholds.json").read_text())
    files = sorted((output / "inputs").glob("*.npz"), key=lambda path: int(path.stem))
    assert len(files) == len(DatasetCatalog.get(cfg.DATASETS.TEST[0])) > 2
    contents = {path: path.read_bytes() for path in files}
    files[2].write_bytes(contents[files[2]][:100])  # as on a disk that was full
    for path in files[3:]:
        path.unlink()
    inferred = []

    def counted(model: object, batches: object, *rest: object):
        for image_id, path in record(model, batches, *rest):
            inferred.append(Path(path))
            yield image_id, path

    monkeypatch.setattr("panoptic_fpn_ext.thresholds.__main__.record", counted)
    main(command)
    assert inferred == files[2:]
    assert {path: path.read_bytes() for path in files} == contents
    assert json.loads((output / "thresholds.json").read_text()) == expected
    (output / "inputs" / "index.json").write_text("{")
    (output / "inputs" / "notes.txt").touch()
    main(command)
    assert (output / "inputs" / "notes.txt").exists()
    assert inferred == files[2:] + files  # of what is not known
    middle = len(contents[files[0]]) // 2
    files[0].write_bytes(contents[files[0]][:middle] + bytes(200) + contents[files[0]][middle + 200 :])
    with pytest.raises(ValueError, match=r"0\.npz is damaged .* Delete it"):
        main(command)


def test_what_a_threshold_left_out_is_told_from_what_was_missed(tmp_path: Path):
    gt_json, _ = write_coco(
        tmp_path,
        [draw("1122 1133 4444", [segment(1, 7), segment(2, 3), segment(3, 3), segment(4, 200)], "0000 0000 0000", {})],
    )
    truth = GroundTruth(str(gt_json), str(gt_json.with_suffix("")))
    ids = ModelIds(
        SimpleNamespace(
            thing_dataset_id_to_contiguous_id={3: 0, 7: 1}, stuff_dataset_id_to_contiguous_id={21: 1, 200: 2}
        )
    )
    labels = np.zeros((3, 4), np.uint8)
    labels[2] = 2
    masks = [np.ones((2, 2), bool), np.ones((1, 2), bool), np.ones((1, 2), bool)]
    windows = np.array([[0, 2, 0, 2], [0, 1, 2, 4], [1, 2, 2, 4]])
    inputs = CombinerInputs(labels, np.array([0.9, 0.4, 0.3]), np.array([1, 0, 1]), windows, masks)
    records = ErrorRecords(truth)
    explain(records, inputs, truth, 0, ids, (0,), (0.5, 0.5, 5.0))
    rows = records.images()[0].rows
    causes = {int(row["id"]): CAUSES[row["cause"]] for row in rows if not row["predicted"]}
    # 3 was predicted as another class, and the area limit took 4.
    assert causes == {1: "matched", 2: "below_score_threshold", 3: "missed", 4: "below_area_limit"}
