"""Files that say that they have very many pixels are refused before they are decoded; the bound is a key."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_input_data import TinyDataset, global_state_restored, train_net
from PIL import Image

from panoptic_fpn_ext.data.check.__main__ import main as check
from panoptic_fpn_ext.image_files import image_size, read_image
from panoptic_fpn_ext.panoptic_png import read_panoptic_png
from panoptic_fpn_ext.pixel_bound import pixel_bound, set_pixel_bound


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("PANOPTIC_FPN_EXT_MAX_IMAGE_PIXELS", "")
    with global_state_restored():
        yield


def _bomb(path: Path, side: int = 40_000) -> Path:
    """A PNG whose header says RGB of ``side``² px and whose data are none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


@pytest.mark.parametrize("read", [read_image, image_size, read_panoptic_png])
def test_a_bomb_is_refused_by_its_header(read, tmp_path: Path):
    path = str(_bomb(tmp_path / "bomb.png"))
    with pytest.raises(ValueError, match=r"bomb\.png .*INPUT\.MAX_IMAGE_PIXELS"):
        read(path)


def test_the_bound_can_be_lowered_and_raised(tmp_path: Path):
    assert pixel_bound() == 2 * 89478485
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "a.png")
    for read in (read_image, read_panoptic_png):
        set_pixel_bound(98)
        with pytest.raises(ValueError, match="MAX_IMAGE_PIXELS"):
            read(str(tmp_path / "a.png"))
        set_pixel_bound(100)
        assert read(str(tmp_path / "a.png")).shape[:2] == (10, 10)
    set_pixel_bound(10**6)
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_panoptic_png(str(_bomb(tmp_path / "bomb.png", 1000)), "pillow")
    with pytest.raises(ValueError, match="must be 0"):
        set_pixel_bound(-1)


def test_the_key_and_the_option(tmp_path: Path):
    dataset = TinyDataset(tmp_path / "data")
    with pytest.raises(ValueError, match=r"image_1\.png says that it has 64×48 px"):
        train_net(dataset, "tiny_bound", tmp_path / "output", "INPUT.MAX_IMAGE_PIXELS", "1000")
    paths = [str(dataset.json), str(dataset.panoptic), str(dataset.images), "--processes", "1"]
    assert check([*paths, "--max-image-pixels", "1000"]) == 1
    assert check([*paths, "--max-image-pixels", "10000"]) == 0
