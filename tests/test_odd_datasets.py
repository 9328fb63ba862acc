"""Sound datasets out of the ordinary train and evaluate with one registration and one command."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_input_data import HEIGHT, WIDTH, TinyDataset, train_net
from PIL import Image

from panoptic_fpn_ext.panoptic_png import read_panoptic_png, write_panoptic_png

SIZES = ("MODEL.ROI_HEADS.NUM_CLASSES", "0", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0")

pytestmark = pytest.mark.usefixtures("restored_state")


@pytest.fixture
def dataset(tmp_path: Path) -> TinyDataset:
    return TinyDataset(tmp_path / "data")


def _recategorise(dataset: TinyDataset, new_ids: dict[int, int], isthing: "dict[int, int] | None" = None) -> None:
    """Other ids and, if given, other kinds of the categories."""
    dataset.content["categories"] = [
        {**c, "id": new_ids[c["id"]], "isthing": (isthing or {}).get(c["id"], c["isthing"])}
        for c in dataset.content["categories"]
    ]
    for annotation in dataset.content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] = new_ids[segment["category_id"]]


def _id_zero_and_gaps(dataset: TinyDataset) -> None:
    _recategorise(dataset, {1: 0, 4: 9999, 7: 17, 9: 3})


def _only_things(dataset: TinyDataset) -> None:
    _recategorise(dataset, {i: i for i in (1, 4, 7, 9)}, dict.fromkeys((7, 9), 1))


def _only_stuff(dataset: TinyDataset) -> None:
    _recategorise(dataset, {i: i for i in (1, 4, 7, 9)}, dict.fromkeys((1, 4), 0))


def _bare_segments(dataset: TinyDataset) -> None:
    for annotation in dataset.content["annotations"]:
        annotation["segments_info"] = [{k: s[k] for k in ("id", "category_id")} for s in annotation["segments_info"]]


def _same_names_in_subfolders(dataset: TinyDataset) -> None:
    for number, (image, annotation) in enumerate(
        zip(dataset.content["images"], dataset.content["annotations"], strict=True), start=1
    ):
        for row, folder, old in (
            (image, dataset.images, dataset.image(number)),
            (annotation, dataset.panoptic, dataset.png(number)),
        ):
            row["file_name"] = f"straße.{number}/a.b 漢字{old.suffix}"
            (folder / row["file_name"]).parent.mkdir()
            old.rename(folder / row["file_name"])


def _repaint(dataset: TinyDataset, paint: Callable[[np.ndarray], None], categories: dict[int, int]) -> None:
    """Change every map; ``categories``: of the new ids."""
    for number, annotation in enumerate(dataset.content["annotations"], start=1):
        ids = read_panoptic_png(str(dataset.png(number)))
        paint(ids)
        write_panoptic_png(str(dataset.png(number)), ids)
        of = {s["id"]: s["category_id"] for s in annotation["segments_info"]} | categories
        annotation["segments_info"] = [{"id": int(i), "category_id": of[int(i)]} for i in np.unique(ids) if i]


def _segments_of_one_pixel(dataset: TinyDataset) -> None:
    def paint(ids: np.ndarray) -> None:
        ids[0, 0], ids[-1, -1], ids[24, 31] = 100, 101, 2**24 - 1

    _repaint(dataset, paint, {100: 1, 101: 4, 2**24 - 1: 7})


def _three_hundred_segments(dataset: TinyDataset) -> None:
    grid = np.arange(HEIGHT)[:, None] // 3 * 20 + np.arange(WIDTH) // 3 + 1
    number = int(grid.max())
    assert number > 300
    _repaint(dataset, lambda ids: np.copyto(ids, grid), {i: (1, 4, 7, 9)[i % 4] for i in range(1, number + 1)})


def _only_void(dataset: TinyDataset) -> None:
    _repaint(dataset, lambda ids: ids.fill(0), {})


def _images_of_other_kinds(dataset: TinyDataset) -> None:
    """Grey JPEG and palette PNG."""
    for image, mode, suffix in zip(dataset.content["images"], ("L", "P"), (".jpg", ".png"), strict=True):
        path = dataset.images / image["file_name"]
        converted = Image.open(path).convert(mode)
        path.unlink()
        image["file_name"] = str(Path(image["file_name"]).with_suffix(suffix))
        converted.save(dataset.images / image["file_name"])


def _turned_by_exif(dataset: TinyDataset) -> None:
    """The file holds the image lying on its side; JSON and map are of the image as it is shown."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        image = Image.open(dataset.image(number)).transpose(Image.Transpose.ROTATE_90)
        image.save(dataset.image(number), exif=exif)


def _one_row(dataset: TinyDataset) -> None:
    for number, image in enumerate(dataset.content["images"], start=1):
        image["height"] = 1
        Image.open(dataset.image(number)).crop((0, 30, WIDTH, 31)).save(dataset.image(number))
        ids = read_panoptic_png(str(dataset.png(number)))[30:31]
        write_panoptic_png(str(dataset.png(number)), ids)
    _repaint(dataset, lambda ids: None, {})


ODDITIES = [
    _id_zero_and_gaps,
    _only_things,
    _only_stuff,
    _bare_segments,
    _same_names_in_subfolders,
    _segments_of_one_pixel,
    _three_hundred_segments,
    _only_void,
    _images_of_other_kinds,
    _turned_by_exif,
    _one_row,
]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ODDITIES, ids=lambda oddity: oddity.__name__.strip("_"))
def test_trains_and_evaluates(dataset: TinyDataset, tmp_path: Path, spoil: Callable[[TinyDataset], None]):
    spoil(dataset)
    dataset.save()
    train_net(dataset, "tiny_odd", tmp_path / "output", *SIZES)
    last = json.loads((tmp_path / "output" / "metrics.json").read_text().splitlines()[-1])
    assert "panoptic_seg/PQ" in last
    assert ("sem_seg/mIoU" in last) == (spoil is not _only_things)
    assert ("segm/AP" in last) == (spoil is not _only_stuff)
    assert len(list((tmp_path / "output" / "inference" / "predictions").iterdir())) == 2


def test_a_config_for_things_is_told_that_there_are_none(dataset: TinyDataset, tmp_path: Path):
    _only_stuff(dataset)
    dataset.save()
    sizes = ("MODEL.ROI_HEADS.NUM_CLASSES", "2", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "0")
    with pytest.raises(
        ValueError, match=r"NUM_CLASSES is 2: set it to 1\n.*SCORE_THRESH_TEST is 0\.05: set it to 1\.0"
    ):
        train_net(dataset, "tiny_odd", tmp_path / "output", *sizes)


def test_exif_data_that_the_annotation_does_not_know_are_named(dataset: TinyDataset, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        Image.open(dataset.image(number)).save(dataset.image(number), exif=exif)
    with pytest.raises(ValueError, match=r"image_\d.*\(48, 64\), expect \(64, 48\).*EXIF"):
        train_net(dataset, "tiny_odd", tmp_path / "output", *SIZES, "DATASETS.CHECKED_IMAGES", "0")
    with pytest.raises(ValueError, match=r"image_1\.jpg has \(height, width\) \(64, 48\), the JSON \(48, 64\)"):
        train_net(dataset, "tiny_odd", tmp_path / "output", *SIZES)
