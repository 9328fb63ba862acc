"""Lazily described networks trained and evaluated on real files, by the command's own functions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input_data import TinyDataset, global_state_restored, project_script
from config_files import CONFIGS, load
from detectron2.config import instantiate
from detectron2.utils.env import seed_all_rng
from places import REPOSITORY

from panoptic_fpn_ext.data.street.categories import categories
from panoptic_fpn_ext.engine import PanopticCheckpointer, PanopticPredictor, Trainer, argument_parser
from panoptic_fpn_ext.engine.lazy_config import load_lazy_config, setup_lazy
from panoptic_fpn_ext.engine.lazy_training import build_lazy_model, build_lazy_optimizer, evaluate_lazily, train_lazily
from panoptic_fpn_ext.engine.setup import load_config

SCRIPT = REPOSITORY / "projects/panoptic_fpn/lazyconfig_train_net.py"
STREET = str(CONFIGS / "SyntheticStreet-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
USER = str(CONFIGS / "User-PanopticSegmentation/panoptic_fpn_R_18_narrow.py")
LOSSES = ["loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"]


def overrides(train: str, val: str, output: Path, *more: str) -> list[str]:
    """Two iterations of two small images."""
    return [
        f"dataloader.train.dataset.names={train}",
        f"dataloader.test.dataset.names={val}",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "train.max_iter=2",
        "train.log_period=1",
        "train.checkpointer.period=1",
        f"train.output_dir={output}",
        *more,
    ]


@pytest.fixture
def cfg(street_datasets, tmp_path):
    return load_lazy_config(STREET, overrides(*street_datasets, tmp_path / "output"), [])


def metrics(cfg) -> list[dict]:
    return [json.loads(line) for line in Path(cfg.train.output_dir, "metrics.json").read_text().splitlines()]


def test_trains_evaluates_and_resumes(cfg):
    before = str(cfg)
    results = train_lazily(cfg)
    assert str(cfg) == before
    assert {"PQ", "SQ", "RQ"} <= set(results["panoptic_seg"])
    assert "mIoU" in results["sem_seg"] and "AP" in results["bbox"] and "AP" in results["segm"]
    assert all(name in metrics(cfg)[0] for name in [*LOSSES, "total_loss", "lr"])
    assert "panoptic_seg/PQ" in metrics(cfg)[-1]

    cfg.train.max_iter = 3
    train_lazily(cfg, resume=True)
    assert [row["iteration"] for row in metrics(cfg) if "total_loss" in row][-1] == 2
    saved = torch.load(Path(cfg.train.output_dir, "model_final.pth"), weights_only=False)
    assert saved["iteration"] == 2


def test_evaluation_of_a_checkpoint_gives_the_same_figures_again(cfg):
    expected = train_lazily(cfg)
    model = build_lazy_model(cfg)
    PanopticCheckpointer(model, complete=True).load(str(Path(cfg.train.output_dir, "model_final.pth")))
    assert evaluate_lazily(cfg, model)["panoptic_seg"] == expected["panoptic_seg"]
    del cfg.dataloader.evaluator
    assert evaluate_lazily(cfg, model) == {}


def test_trains_as_its_yaml_twin_does(cfg, street_datasets, tmp_path):
    """From the same random state, the same losses, bit by bit, and the same results."""
    twin = load(STREET.replace(".py", ".yaml"))
    twin.DATASETS.TRAIN, twin.DATASETS.TEST = street_datasets[:1], street_datasets[1:]
    twin.INPUT.MIN_SIZE_TRAIN, twin.INPUT.MIN_SIZE_TEST = (64,), 64
    # A shorter run would warm up faster; the learning rates are compared elsewhere.
    twin.SOLVER.IMS_PER_BATCH, twin.SOLVER.WARMUP_ITERS = 2, 2 * twin.SOLVER.WARMUP_ITERS / twin.SOLVER.MAX_ITER
    twin.SOLVER.MAX_ITER, twin.MODEL.DEVICE, twin.OUTPUT_DIR = 2, "cpu", str(tmp_path / "twin")
    seed_all_rng(1)
    trainer = Trainer(twin)
    trainer.train()
    histories = {name: [x for x, _ in trainer.storage.history(name).values()] for name in LOSSES}

    seed_all_rng(1)
    results = train_lazily(cfg)
    for name, losses in histories.items():  # the file has the median of the last 20
        found = [row[name] for row in metrics(cfg) if name in row]
        assert found[:2] == [losses[0], np.median(losses)], name
    assert results["panoptic_seg"] == trainer._last_eval_results["panoptic_seg"]


def test_micro_batches_and_mixed_precision(cfg):
    cfg.train.accumulate_steps, cfg.train.amp.enabled, cfg.train.max_iter = 2, True, 1
    del cfg.dataloader.evaluator
    train_lazily(cfg)
    assert all(name in metrics(cfg)[0] for name in LOSSES)


def test_clip_gradients(cfg):
    """With a norm of 0 as the limit nothing is learnt."""
    model = torch.nn.Linear(2, 2)
    weight = model.weight.detach().clone()
    cfg.optimizer.weight_decay = 0.0
    for enabled in (True, False):
        cfg.train.clip_gradients.update(enabled=enabled, clip_value=0.0)
        optimizer = build_lazy_optimizer(cfg, model)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert torch.equal(model.weight, weight) == enabled


def test_head_sizes_are_taken_from_the_dataset(street_datasets, tmp_path):
    cfg = load_lazy_config(USER, overrides(*street_datasets, tmp_path), [])
    model = build_lazy_model(cfg)
    assert model.roi_heads.num_classes == 4
    assert model.sem_seg_head.predictor.out_channels == 8
    assert model.combiner.thing_sem_seg_ids == {0}


def test_files_are_checked_before_the_training(tmp_path):
    dataset = TinyDataset(tmp_path / "data")
    dataset.segments(2)[0]["area"] += 100
    dataset.save()
    words = overrides("tiny_unsound", "tiny_unsound", tmp_path / "output")
    with global_state_restored():
        cfg = load_lazy_config(USER, words, [dataset.registration("tiny_unsound")])
        with pytest.raises(
            ValueError, match=r"image_2\.png.* area (?s:.*)dataloader\.train\.mapper\.allow_errors True"
        ):
            train_lazily(cfg)
        allowed = [*words, "dataloader.train.mapper.allow_errors=true", "train.max_iter=1"]
        train_lazily(load_lazy_config(USER, allowed, [dataset.registration("tiny_unsound")]))


def test_misfits_are_refused(street_datasets, tmp_path):
    def load_with(*more):
        return load_lazy_config(STREET, overrides(*street_datasets, tmp_path, *more), [])

    with pytest.raises(ValueError, match=r"model\.roi_heads\.num_classes is 5: set it to 4"):
        load_with("model.roi_heads.num_classes=5")
    with pytest.raises(ValueError, match=r"model\.combiner\.thing_sem_seg_ids is \[1\]: set it to \[0\]"):
        load_with("model.combiner.thing_sem_seg_ids=[1]")
    with pytest.raises(KeyError, match=r"'no_such'.*dataloader\.train.*not registered.*--register"):
        load_with("dataloader.test.dataset.names=no_such")
    with pytest.raises(KeyError, match=r"no key 'train\.maxiter'. Did you mean train\.max_iter"):
        load_with("train.maxiter=5")
    assert load_with("+train.note=5").train.note == 5
    with pytest.raises(FileNotFoundError, match=r"'no_such\.py' is no config file, no checkpoint"):
        load_lazy_config("no_such.py", [], [])
    with pytest.raises(KeyError, match=r"lacks .*lr_multiplier"):
        load_lazy_config(str(CONFIGS / "common/train.py"), [], [])


@pytest.fixture
def arguments(small_street) -> Iterator[list[str]]:
    """The part of the command line that registers the datasets."""
    found = []
    for split in ("train", "val"):
        paths = (split, f"panoptic_{split}", f"annotations/panoptic_{split}.json")
        found += ["--register", f"lazy_{split}", *(str(small_street / path) for path in paths)]
    with global_state_restored():
        yield found


def test_command(arguments, tmp_path, capsys):
    """Trains, resumes, and evaluates what it left with the config that it left."""
    script, output = project_script("panoptic_fpn/lazyconfig_train_net.py"), tmp_path / "output"

    def run(*more: str) -> str:
        script.main(argument_parser().parse_args([*arguments, *more]))
        return capsys.readouterr().out

    options = overrides("lazy_train", "lazy_val", output)
    run("--config-file", STREET, *options)
    run("--config-file", STREET, "--resume", *options, "train.max_iter=3")
    assert torch.load(output / "model_final.pth", weights_only=False)["iteration"] == 2
    left, weights = str(output / "config.yaml"), f"train.init_checkpoint={output / 'model_final.pth'}"
    before = (output / "config.yaml").read_bytes()
    assert f"Written to {output / 'inference_2'}" in run("--config-file", left, "--eval-only", weights)
    assert f"Written to {output / 'inference_3'}" in run("--config-file", left, "--eval-only", "--resume")
    assert (output / "config.yaml").read_bytes() == before
    with pytest.raises(ValueError, match=r"init_checkpoint is empty"):
        run("--config-file", left, "--eval-only", "train.init_checkpoint=''")


@pytest.mark.slow
def test_command_in_two_processes(arguments, tmp_path):
    """On a CPU, with a branch that has no gradient in every other iteration."""
    options = overrides("lazy_train", "lazy_val", tmp_path / "output", "model.alternate_losses=true")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--num-gpus", "2", "--dist-url", "auto", *arguments]
    done = subprocess.run([*command, "--config-file", STREET, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Panoptic Quality by category" in done.stdout
    assert torch.load(tmp_path / "output/model_final.pth", weights_only=False)["iteration"] == 1


def test_each_kind_of_config_has_its_command():
    with pytest.raises(ValueError, match=r"lazyconfig_train_net\.py"):
        load_config(STREET, [], [])
    with pytest.raises(KeyError, match="Is it one"):
        load_lazy_config(STREET.replace(".py", ".yaml"), [], [])


def test_its_run_predicts_what_its_evaluation_predicts(street_datasets, tmp_path):
    run = tmp_path / "output"
    demo = project_script("panoptic_fpn/demo.py")
    with global_state_restored():
        words = ["--config-file", STREET, *overrides(*street_datasets, run)]
        cfg = setup_lazy(argument_parser().parse_args(words))
        train_lazily(cfg)
        inputs = next(iter(instantiate(cfg.dataloader.test)))
        path = inputs[0]["file_name"]
        before = str(cfg)
        predictors = [PanopticPredictor(str(run / "config.yaml")), PanopticPredictor(cfg, str(run / "model_final.pth"))]
        assert str(cfg) == before
        with torch.no_grad():
            expected = predictors[0].model(inputs)[0]
        for predictor in predictors:
            found = predictor(path)
            assert torch.equal(found["panoptic_seg"][0], expected["panoptic_seg"][0])
            assert torch.equal(found["sem_seg"], expected["sem_seg"])
            assert {segment["name"] for segment in found["panoptic_seg"][1]} <= {row["name"] for row in categories()}
        for name in (run, run / "model_final.pth"):  # nobody named what would be called
            with pytest.raises(ValueError, match="where it is named itself"):
                PanopticPredictor(str(name))

        command = ["--config-file", str(run / "config.yaml"), "--input", path, "--output", str(tmp_path / "drawn")]
        assert demo.main([*command, "--confidence-threshold", "0.1", "--save-results"]) == 0
        assert demo.main([*command, "--opts", "train.test_aug.enabled=True", "train.test_aug.min_sizes=[64]"]) == 0
        assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
        with pytest.raises(ValueError, match="key=value"):
            demo.main([*command, "--opts", "MODEL.WEIGHTS", "x.pth"])
