"""Whatever is wrong with a user's files ends in one message that names file, ids and key; nothing written is lost."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input_data import TinyDataset, global_state_restored, train_net, train_net_args, truncate
from detectron2.engine.hooks import CallbackHook

from panoptic_fpn_ext.command import MISTAKE, child_output, describe_error
from panoptic_fpn_ext.engine import PanopticCheckpointer, Trainer, setup
from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png
from panoptic_fpn_ext.structures import UnreadableFileError

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def dataset(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a training of two iterations."""
    root = tmp_path_factory.mktemp("trained")
    with global_state_restored():
        train_net(TinyDataset(root / "data"), "tiny_trained", root / "output")
    return root / "output" / "model_final.pth"


def _fails(
    dataset: TinyDataset, tmp_path: Path, error: type[Exception], *words: str, extra: tuple[str, ...] = ()
) -> None:
    """A run ends in ``error``, and the last line of its traceback, or what follows it, has all these words."""
    with pytest.raises(error) as caught:
        train_net(dataset, "tiny_spoilt", tmp_path / "output", *extra)
    message = str(caught.value)
    missing = [word for word in words if word not in message]
    assert not missing, message


UNCHECKED = ("DATASETS.CHECKED_IMAGES", "0")  # so that what the mapper says is seen


def _change_map(path: Path, change: Callable[[np.ndarray], None]) -> None:
    ids = read_panoptic_png(str(path))
    change(ids)
    write_panoptic_png(str(path), ids)


def test_a_sound_dataset_trains_and_evaluates(trained: Path):
    assert trained.is_file()


@pytest.mark.parametrize("kind", ["image", "png"])
def test_missing_file(dataset: TinyDataset, tmp_path: Path, kind: str):
    path: Path = getattr(dataset, kind)(2)
    path.unlink()
    _fails(dataset, tmp_path, FileNotFoundError, str(path), "1 of 4 files")


def test_a_file_where_a_folder_is_to_be_made(tmp_path: Path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileExistsError) as caught:
        (tmp_path / "photo.jpg").mkdir(exist_ok=True)
    assert describe_error(caught.value) == (
        f"{tmp_path / 'photo.jpg'} is a file, where a folder is needed. Name another path.",
        MISTAKE,
    )


def test_missing_json(dataset: TinyDataset, tmp_path: Path):
    dataset.json.unlink()
    _fails(dataset, tmp_path, FileNotFoundError, str(dataset.json), "tiny_spoilt", "panoptic_json")


def test_json_that_is_none(dataset: TinyDataset, tmp_path: Path):
    truncate(dataset.json)
    _fails(dataset, tmp_path, ValueError, str(dataset.json), "not valid JSON")


def test_json_whose_annotations_are_no_list(dataset: TinyDataset, tmp_path: Path):
    dataset.content["annotations"] = None
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.json), "['annotations'] must be lists")


@pytest.mark.parametrize(("part", "field"), [("images", "width"), ("annotations", "segments_info")])
def test_json_without_a_field(dataset: TinyDataset, tmp_path: Path, part: str, field: str):
    del dataset.content[part][1][field]
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.json), "image_2", field)


def test_png_with_ids_that_the_json_does_not_list(dataset: TinyDataset, tmp_path: Path):
    for number in (1, 2):
        _change_map(dataset.png(number), lambda ids: ids[:2].fill(70001))
    _fails(dataset, tmp_path, ValueError, str(dataset.panoptic), "does not list", "[70001]", extra=UNCHECKED)


def test_listed_segment_without_pixels(dataset: TinyDataset, tmp_path: Path):
    for number in (1, 2):
        _change_map(dataset.png(number), lambda ids: np.putmask(ids, ids == 4, 7))
    _fails(dataset, tmp_path, ValueError, str(dataset.panoptic), "without a pixel", "[4]", extra=UNCHECKED)


def test_category_outside_the_list(dataset: TinyDataset, tmp_path: Path):
    dataset.segments(2)[0]["category_id"] = 55
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.json), "image_2.png", "segment 1", "55", "[1, 4, 7, 9]")


def test_png_of_another_size_than_the_image(dataset: TinyDataset, tmp_path: Path):
    for number in (1, 2):
        write_panoptic_png(str(dataset.png(number)), read_panoptic_png(str(dataset.png(number)))[:, :60])
    _fails(dataset, tmp_path, ValueError, str(dataset.panoptic), str(dataset.images), "60×48", "64×48", extra=UNCHECKED)


def test_image_of_another_size_than_the_json_says(dataset: TinyDataset, tmp_path: Path):
    for image in dataset.content["images"]:
        image["width"] = 65
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.images), "(64, 48)", "(65, 48)", extra=UNCHECKED)


def test_wrong_num_classes(dataset: TinyDataset, tmp_path: Path):
    extra = ("MODEL.ROI_HEADS.NUM_CLASSES", "80", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "54")
    words = ("MODEL.ROI_HEADS.NUM_CLASSES is 80: set it to 2", "MODEL.SEM_SEG_HEAD.NUM_CLASSES is 54: set it to 3")
    _fails(dataset, tmp_path, ValueError, "tiny_spoilt", *words, extra=extra)


def test_num_classes_to_be_filled_in_from_an_unknown_dataset(dataset: TinyDataset, tmp_path: Path):
    extra = ("MODEL.ROI_HEADS.NUM_CLASSES", "0", "DATASETS.TRAIN", "('nowhere',)", "DATASETS.TEST", "()")
    _fails(dataset, tmp_path, KeyError, "MODEL.ROI_HEADS.NUM_CLASSES", "nowhere", "--register", extra=extra)


def test_unknown_dataset(dataset: TinyDataset, tmp_path: Path):
    extra = ("DATASETS.TRAIN", "('nowhere',)")
    _fails(dataset, tmp_path, KeyError, "nowhere", "DATASETS.TRAIN", "--register", extra=extra)


def test_no_dataset(dataset: TinyDataset, tmp_path: Path):
    _fails(dataset, tmp_path, ValueError, "DATASETS.TRAIN is empty", extra=("DATASETS.TRAIN", "()"))


def test_keys_that_are_none(dataset: TinyDataset, tmp_path: Path):
    _fails(dataset, tmp_path, ValueError, "Did you mean MODEL.WEIGHTS", extra=("MODEL.WIGHTS", "x"))
    _fails(dataset, tmp_path, ValueError, "KEY VALUE", extra=("MODEL.WEIGHTS",))


def test_missing_config_file(tmp_path: Path):
    args = train_net_args(TinyDataset(tmp_path / "data"), "tiny_spoilt", tmp_path)
    args.config_file = str(tmp_path / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml. is no config file, no checkpoint"):
        setup(args)


def test_checkpoint_of_another_architecture(dataset: TinyDataset, tmp_path: Path, trained: Path):
    weights = ("MODEL.WEIGHTS", str(trained))
    words = (str(trained), "another architecture", "sem_seg_head", "--config-file", "MODEL.WEIGHTS")
    _fails(dataset, tmp_path, ValueError, *words, extra=("--eval-only", *weights, "MODEL.SEM_SEG_HEAD.CONVS_DIM", "64"))


def test_checkpoint_of_something_else_is_not_trained_on(dataset: TinyDataset, tmp_path: Path):
    path = tmp_path / "other.pth"
    torch.save({"model": {"encoder.weight": torch.zeros(3)}}, path)
    extra = ("MODEL.WEIGHTS", str(path))
    _fails(dataset, tmp_path, ValueError, str(path), "another architecture", "encoder", extra=extra)


@pytest.mark.parametrize("content", [b"", b"text", [1, 2], {"model": 3}])
def test_file_that_is_no_checkpoint(dataset: TinyDataset, tmp_path: Path, content: object):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    _fails(dataset, tmp_path, ValueError, str(path), "MODEL.WEIGHTS", "checkpoint", extra=("MODEL.WEIGHTS", str(path)))


def test_missing_checkpoint(dataset: TinyDataset, tmp_path: Path):
    path = str(tmp_path / "nowhere.pth")
    _fails(dataset, tmp_path, FileNotFoundError, path, "MODEL.WEIGHTS", extra=("MODEL.WEIGHTS", path))


def test_evaluation_without_weights(dataset: TinyDataset, tmp_path: Path):
    _fails(dataset, tmp_path, ValueError, "MODEL.WEIGHTS is empty", extra=("--eval-only",))


def test_resuming_with_a_config_that_was_changed(dataset: TinyDataset, tmp_path: Path):
    train_net(dataset, "tiny_spoilt", tmp_path / "output")
    words = ("model_final.pth", "another architecture", "OUTPUT_DIR")
    _fails(dataset, tmp_path, ValueError, *words, extra=("--resume", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "64"))


@pytest.mark.parametrize("spoil", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_text("text")])
def test_corrupt_image(dataset: TinyDataset, tmp_path: Path, spoil: Callable[[Path], object]):
    for number in (1, 2):
        spoil(dataset.image(number))
    _fails(dataset, tmp_path, ValueError, str(dataset.images), "Replace the file")


def test_truncated_panoptic_png(dataset: TinyDataset, tmp_path: Path):
    for number in (1, 2):
        truncate(dataset.png(number))
    _fails(dataset, tmp_path, ValueError, str(dataset.panoptic), "broken")


@pytest.mark.slow  # PyTorch waits 5 s for the worker
def test_a_worker_process_ends_in_the_same_message(dataset: TinyDataset, tmp_path: Path, trained: Path):
    truncate(dataset.image(1))
    extra = ("--eval-only", "MODEL.WEIGHTS", str(trained), "DATALOADER.NUM_WORKERS", "1")
    with pytest.raises(ValueError, match="image_1") as caught:
        train_net(dataset, "tiny_spoilt", tmp_path / "output", *extra)
    last_line = str(caught.value).strip().splitlines()[-1]
    assert last_line.strip().startswith(f"- Image {dataset.image(1)} cannot be read")


def test_what_stops_a_worker_process_is_said_in_one_line():
    for name, kind in (
        ("ValueError", ValueError),
        ("panoptic_fpn_ext.structures.UnreadableFileError", UnreadableFileError),
    ):
        traced = "Original Traceback (most recent call last):\n  File ...\n    raise ValueError: no, this\n"
        error = kind(
            f"Caught {kind.__name__} in DataLoader worker process 0.\n{traced}{name}: Image a.jpg is broken.\n"
        )
        text, status = describe_error(error)
        assert text.startswith("Image a.jpg is broken.")
        assert (text.count("\n"), status) == (0, MISTAKE)


def test_training_that_meets_a_corrupt_image_keeps_what_it_wrote_and_resumes(dataset: TinyDataset, tmp_path: Path):
    output = tmp_path / "output"
    sound = {number: dataset.image(number).read_bytes() for number in (1, 2)}
    args = train_net_args(dataset, "tiny_spoilt", output, "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.MAX_ITER", "6")
    trainer = Trainer(setup(args))

    def spoil(trainer: Trainer) -> None:
        if trainer.iter == 2:
            for number in sound:
                truncate(dataset.image(number))

    trainer.register_hooks([CallbackHook(after_step=spoil)])
    with pytest.raises(ValueError, match="cannot be read"):
        trainer.train()

    names = {path.name for path in output.iterdir()}
    assert {"model_0000000.pth", "model_0000001.pth", "model_0000002.pth", "last_checkpoint", "config.yaml"} <= names
    assert json.loads((output / "metrics.json").read_text().splitlines()[-1])["iteration"] >= 2
    assert "cannot be read" in (output / "log.txt").read_text()

    for number, content in sound.items():
        dataset.image(number).write_bytes(content)
    args.resume = True
    resumed = Trainer(setup(args))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 3


def test_evaluation_that_meets_a_corrupt_image_keeps_the_trained_model(dataset: TinyDataset, tmp_path: Path):
    output = tmp_path / "output"
    spoilt = TinyDataset(tmp_path / "spoilt")
    truncate(spoilt.image(2))
    args = train_net_args(dataset, "tiny_spoilt", output, "DATASETS.TEST", "('tiny_test',)")
    args.register.append(spoilt.registration("tiny_test"))
    trainer = Trainer(setup(args))
    with pytest.raises(ValueError, match="image_2"):
        trainer.train()
    model = Trainer.build_model(trainer.cfg)
    PanopticCheckpointer(model, complete=True).load(str(output / "model_final.pth"))


@pytest.mark.parametrize(("field", "value", "words"), [("name", None, "lacks 'name'"), ("id", 4, "duplicates: [4]")])
def test_categories_that_are_none(dataset: TinyDataset, tmp_path: Path, field: str, value: object, words: str):
    category = {**dataset.content["categories"][0], field: value}
    if value is None:
        del category[field]
    dataset.content["categories"] = [category, *dataset.content["categories"][1:]]
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.json), words)


def test_segments_that_are_no_list(dataset: TinyDataset, tmp_path: Path):
    dataset.content["annotations"][1]["segments_info"] = None
    dataset.save()
    _fails(dataset, tmp_path, ValueError, str(dataset.json), "image_2.png", "segments_info must be a list, got null")


def test_a_process_that_failed_is_named_with_what_it_said():
    code = "import sys; print('lines', 1); sys.exit(sys.argv[1])"
    command = [sys.executable, "-c", code]
    assert child_output([sys.executable, "-c", "print(1)"]) == "1\n"
    with pytest.raises(ChildProcessError, match=r"(?s)exit status 1\): .*-c .*the reason$"):
        child_output([*command, "the reason"])
