"""Every kind of image: its pixels, or a sentence that names file and kind."""

import itertools
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import detection_utils
from detectron2.utils import logger as detectron2_logger
from image_kinds import GREY, REFUSED, RGB, SOUND, broken_exif, save
from PIL import Image

from panoptic_fpn_ext.data import PanopticDatasetMapper
from panoptic_fpn_ext.image_files import image_channels, image_size, read_image, read_labels, to_input_format


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.name)
def test_it_is_read_right(kind, tmp_path: Path):
    path = kind.write(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = read_image(str(path), "RGB")
    assert rgb.dtype == np.uint8
    assert np.abs(rgb.astype(int) - kind.expected).max() <= kind.tolerance
    assert np.array_equal(read_image(path, "BGR"), rgb[..., ::-1])
    with Image.open(path) as image:
        assert np.array_equal(read_image(image, "RGB"), rgb)


@pytest.mark.parametrize("kind", SOUND, ids=lambda kind: kind.name)
def test_its_size_is_that_of_its_pixels(kind, tmp_path: Path):
    assert image_size(kind.write(tmp_path)) == kind.expected.shape[:2]


def test_the_size_of_what_is_no_image_is_refused_by_name(tmp_path: Path):
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(ValueError, match=r"Image .*text\.jpg is empty or no image"):
        image_size(tmp_path / "text.jpg")
    with pytest.raises(FileNotFoundError, match=r"Image .*none\.png does not exist"):
        image_size(tmp_path / "none.png")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_there_are_not_turn_nothing(orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(RGB, tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path, "RGB"), RGB)
    assert image_size(path) == RGB.shape[:2]


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
def test_it_is_refused_by_name(kind, tmp_path: Path):
    path = kind.write(tmp_path)
    with pytest.raises(ValueError, match=kind.says) as caught:
        read_image(str(path), "BGR")
    assert f"Image {path} " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mapper_reads_the_same_and_refuses_the_same(tmp_path: Path):
    mapper = PanopticDatasetMapper(False, categories=None, augmentations=[], image_format="RGB")
    for kind in SOUND:
        path = str(kind.write(tmp_path))
        assert np.array_equal(mapper({"file_name": path})["image"].permute(1, 2, 0), read_image(path, "RGB"))
    for kind in REFUSED:
        path = str(kind.write(tmp_path))
        with pytest.raises(ValueError, match=kind.says) as caught:
            mapper({"file_name": path})
        assert f"Image {path} " in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_exif_says(suffix: str, orientation: int, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # the file's upper left corner
    save(stored, tmp_path / f"a{suffix}", exif=exif)
    read = read_image(str(tmp_path / f"a{suffix}"), "RGB")
    turned = orientation >= 5
    assert read.shape == ((24, 16, 3) if turned else (16, 24, 3))
    assert image_size(tmp_path / f"a{suffix}") == read.shape[:2]
    # Where the file's first row and first column are when the image is shown (EXIF 2.3, tag 274).
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    bright = [(row, column) for row, column in itertools.product((0, -1), (0, -1)) if read[row, column, 0] > 128]
    assert bright == [corners[orientation]]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_are_no_obstacle(tmp_path: Path):
    path = broken_exif(tmp_path)
    assert np.array_equal(read_image(path, "RGB"), RGB)
    assert image_size(path) == RGB.shape[:2]


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601", "HSV"])
def test_formats_are_detectron2s(image_format: str, tmp_path: Path):
    for array in (RGB, GREY):
        path = save(array, tmp_path / "a.png")
        read = read_image(path, image_format)
        expected = detection_utils.read_image(str(path), image_format)
        assert read.shape == (*array.shape[:2], image_channels(image_format))
        assert np.array_equal(read, expected.astype(read.dtype))
        assert np.array_equal(to_input_format(read_image(path, "BGR"), image_format), read)


def test_an_unknown_format_is_refused(tmp_path: Path):
    for read in (lambda f: read_image(tmp_path / "a.png", f), lambda f: to_input_format(RGB, f)):
        with pytest.raises(ValueError, match=r"INPUT\.FORMAT must be one of \['BGR'.*got 'GRAY'"):
            read("GRAY")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"Image .*a\.png does not exist"):
        read_image(tmp_path / "a.png")


def test_an_image_of_pillows_is_not_changed():
    image = Image.fromarray(GREY).convert("P")
    image.info["transparency"] = bytes(256)
    image.getexif()[0x0112] = 6
    assert read_image(image).shape == (GREY.shape[1], GREY.shape[0], 3)
    assert image.mode == "P"
    assert image.size == GREY.shape[::-1]
    assert "transparency" in image.info
    with pytest.raises(ValueError, match="mode F"):
        read_image(Image.fromarray(GREY.astype(np.float32)))


def test_what_may_surprise_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    detectron2_logger._LOG_COUNTER.clear()
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "dark.png")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            read_image(tmp_path / "a.tif")
            read_image(tmp_path / "dark.png")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "a.tif has several frames or pages" in said[0]
    assert "dark.png has 16 bits, but its values end at" in said[1]


def test_labels_are_grey_values_or_palette_indices(tmp_path: Path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = Image.fromarray(labels).convert("P")
    palette.putdata(labels.flatten().tolist())
    palette.putpalette([200, 0, 0, 0, 200, 0] * 128)
    palette.save(tmp_path / "p.png")
    Image.fromarray(labels).save(tmp_path / "l.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "i.png")
    for name in ("p.png", "l.png", "i.png"):
        read = read_labels(str(tmp_path / name))
        assert read.dtype == np.uint8
        assert np.array_equal(read, labels)
    Image.fromarray(labels.astype(np.uint16) * 100).save(tmp_path / "i.png")
    assert read_labels(str(tmp_path / "i.png")).max() == 1100
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"Label map .*rgb\.png has mode RGB"):
        read_labels(str(tmp_path / "rgb.png"))
    with pytest.raises(FileNotFoundError, match=r"Label map .*none\.png"):
        read_labels(str(tmp_path / "none.png"))


@pytest.mark.parametrize("source", [b"a.png", 3, None])
def test_what_is_no_image_is_a_type_error(source):
    with pytest.raises(TypeError, match="the name of a file.*got " + type(source).__name__):
        read_image(source)
