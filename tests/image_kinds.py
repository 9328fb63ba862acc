"""Images of every kind, made here, each with the pixels that are right or the words of its refusal."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 40, 56
_ROWS, _COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([_ROWS * 6, _COLUMNS * 4, 255 - _ROWS * 2 - _COLUMNS * 3], axis=2).astype(np.uint8)
"""uint8 (40, 56, 3), smooth."""
GREY = RGB[..., 0]
_ALPHA = np.where(_ROWS < HEIGHT // 2, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Kind:
    """A kind of image: ``write`` makes it in a folder."""

    name: str
    make: Callable[[Path], Any]
    expected: Any = None
    tolerance: int = 0
    says: str = ""

    def write(self, folder: Path) -> Path:
        """The file, made."""
        path = folder / self.name
        self.make(path)
        return path


def save(array: npt.NDArray[Any], path: Path, **options: Any) -> Path:
    """Write an array with Pillow."""
    Image.fromarray(array).save(path, **options)
    return path


def as_rgb(grey: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W) to (H, W, 3)."""
    return np.repeat(grey[..., None], 3, axis=2)


def png(pixels: npt.NDArray[Any], colour_type: int, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of 8 or 16 bits, (H, W) or (H, W, C), as the standard has it; ``size``: the height and width it claims."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = size or (height, width)
    header = struct.pack(">IIBBBBB", width, height, pixels.itemsize * 8, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(
    pixels: npt.NDArray[Any],
    *,
    bits: int | None = None,
    sample_format: int = 1,
    white_is_zero: bool = False,
    data: bytes = b"",
) -> bytes:
    """An uncompressed TIFF in one strip, as the standard has it; ``data`` instead of the pixels' own bytes."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = data or pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    bits = bits or pixels.itemsize * 8
    tags = {
        256: (width,),
        257: (height,),
        258: (bits,) * channels,
        259: (1,),
        262: (2 if channels >= 3 else int(not white_is_zero),),
        273: (8,),
        277: (channels,),
        278: (height,),
        279: (len(data),),
        339: (sample_format,) * channels,
    }
    entries, extra, directory = b"", b"", 8 + len(data) + len(data) % 2
    after = directory + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind = 4 if tag in (273, 279) else 3
        packed = struct.pack(f"<{len(values)}{'I' if kind == 4 else 'H'}", *values)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack("<I", after + len(extra))
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", directory) + data.ljust(directory - 8, b"\0") + ifd + extra


def broken_exif(folder: Path) -> Path:
    """A sound image with EXIF data that are none."""
    path = folder / "broken_exif.png"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")
    return path


def _write(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


def _save(array: npt.NDArray[Any], mode: str = "", **options: Any) -> Callable[[Path], Any]:
    def save_as(path: Path) -> None:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(path, **options)

    return save_as


def _palette(alpha: bool) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        image = Image.fromarray(GREY // 8).convert("P")
        image.putdata((GREY // 8).flatten().tolist())
        image.putpalette([value for i in range(256) for value in (i * 7 % 256, i * 5 % 256, 255 - i)])
        image.save(path, **({"transparency": bytes(range(256))} if alpha else {}))

    return write


_PALETTE_RGB = np.stack([GREY // 8 * 7, GREY // 8 * 5, 255 - GREY // 8], axis=2)


def _frames(path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def _gif(path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _lab(path: Path) -> None:
    lab = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    lab[..., 0] = 255  # white: L* is 100, a* and b* are 0
    Image.frombytes("LAB", (WIDTH, HEIGHT), lab.tobytes()).save(path)


def _heic(path: Path) -> None:
    path.write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100))


def _cut(suffix: str, fraction: float = 0.6) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        data = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(data, suffix)
        path.write_bytes(data.getvalue()[: int(len(data.getvalue()) * fraction)])

    return write


def _twelve_bits(values: npt.NDArray[Any]) -> bytes:
    pairs = values.reshape(-1, 2).astype(np.uint32)
    bytes_ = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    return bytes_.astype(np.uint8).tobytes()


_GREY16 = GREY.astype(np.uint16) * 256 + 77
_RGB16 = RGB.astype(np.uint16) * 256 + 77
_ONE_BIT = np.where(GREY > 100, 255, 0).astype(np.uint8)
_16_BIT_RGBA = np.dstack([_RGB16, _ALPHA.astype(np.uint16) * 257])

SOUND = [
    Kind("rgb.png", _save(RGB), RGB),
    Kind("rgb.bmp", _save(RGB), RGB),
    Kind("rgb.ppm", _save(RGB), RGB),
    Kind("grey.png", _save(GREY), as_rgb(GREY)),
    Kind("one_bit.png", _save(_ONE_BIT, "1"), as_rgb(_ONE_BIT)),
    Kind("one_bit.tif", _save(_ONE_BIT, "1"), as_rgb(_ONE_BIT)),
    Kind("grey16.png", _write(png(_GREY16, 0)), as_rgb(GREY)),
    Kind("grey16.tif", _write(tiff(_GREY16)), as_rgb(GREY)),
    Kind("white_is_zero.tif", _write(tiff(255 - GREY, white_is_zero=True)), as_rgb(GREY)),
    Kind("white_is_zero16.tif", _write(tiff(65535 - _GREY16, white_is_zero=True)), as_rgb(GREY)),
    Kind("grey12.tif", _write(tiff(_GREY16, bits=12, data=_twelve_bits(_GREY16 >> 4))), as_rgb(GREY)),
    Kind("grey16.pgm", _write(b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + _GREY16.astype(">u2").tobytes()), as_rgb(GREY)),
    Kind("grey16_alpha.png", _write(png(np.dstack([_GREY16, _GREY16]), 4)), as_rgb(GREY)),
    Kind("rgb16.png", _write(png(_RGB16, 2)), RGB),
    Kind("rgb16.tif", _write(tiff(_RGB16)), RGB),
    Kind("rgba16.png", _write(png(_16_BIT_RGBA, 6)), RGB),
    Kind("palette.png", _palette(alpha=False), _PALETTE_RGB),
    Kind("palette_alpha.png", _palette(alpha=True), _PALETTE_RGB),
    Kind("rgba.png", _save(np.dstack([RGB, _ALPHA])), RGB),
    Kind("rgba.tif", _save(np.dstack([RGB, _ALPHA])), RGB),
    Kind("rgba.webp", _save(np.dstack([RGB, _ALPHA]), lossless=True, exact=True), RGB),
    Kind("grey_alpha.png", _write(png(np.dstack([GREY, _ALPHA]), 4)), as_rgb(GREY)),
    Kind("transparent_colour.png", _save(RGB, transparency=(0, 0, 255)), RGB),
    Kind("ycbcr.jpg", _save(RGB, quality=100, subsampling=0), RGB, tolerance=4),
    Kind("cmyk.jpg", _save(RGB, "CMYK", quality=100, subsampling=0), RGB, tolerance=4),
    Kind("grey.jpg", _save(GREY, quality=100), as_rgb(GREY), tolerance=4),
    Kind("lab.tif", _lab, np.full_like(RGB, 255), tolerance=1),
    Kind("frames.gif", _gif, as_rgb(GREY)),
    Kind("frames.webp", _frames, RGB),
    Kind("frames.png", _frames, RGB),
    Kind("pages.tif", _frames, RGB),
    Kind("png_named.jpg", _write(png(RGB, 2)), RGB),
    Kind("flat.png", _save(RGB[:2]), RGB[:2]),
    Kind("row.png", _write(png(np.tile(RGB[:1], (1, 60, 1)), 2)), np.tile(RGB[:1], (1, 60, 1))),
    Kind("column.png", _write(png(np.tile(RGB[:, :2], (75, 1, 1)), 2)), np.tile(RGB[:, :2], (75, 1, 1))),
    Kind("pixel.png", _save(RGB[:1, :1]), RGB[:1, :1]),
]
"""Kinds that are read, with their pixels."""

REFUSED = [
    Kind("float.tif", _save(GREY.astype(np.float32) / 255), says=r"mode F, 32-bit floats from 0\.0 to"),
    Kind("int32.tif", _save(GREY.astype(np.int32)), says="mode I, signed integers from 0 to"),
    Kind("uint32.tif", _write(tiff(GREY.astype(np.uint32))), says="mode I, 32-bit integers from 0 to"),
    Kind("int16.tif", _write(tiff(_GREY16.astype(np.int16), sample_format=2)), says="mode I, signed"),
    Kind("int8.tif", _write(tiff(GREY.astype(np.int8), sample_format=2)), says="signed"),
    Kind("float_rgb.tif", _write(tiff(RGB.astype(np.float32), sample_format=3)), says="TIFF of a kind that Pillow"),
    Kind("bands.tif", _write(tiff(np.dstack([_RGB16] * 3))), says="TIFF of a kind that Pillow"),
    Kind("photo.heic", _heic, says="is HEIC"),
    Kind("empty.jpg", _write(b""), says="is empty or no image"),
    Kind("text.jpg", _write(b"text"), says="is empty or no image"),
    Kind("page.jpg", _write(b"<!DOCTYPE html><html>not found</html>"), says="web page"),
    Kind("pointer.jpg", _write(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), says="git lfs pull"),
    Kind("cut.jpg", _cut("JPEG"), says="cannot be read"),
    Kind("cut.png", _cut("PNG"), says="cannot be read"),
    Kind("cut.webp", _cut("WEBP"), says="cannot be read|no image"),
    Kind("cut.tif", _cut("TIFF"), says="cannot be read|no image|TIFF"),
    Kind("cut_head.png", _write(png(RGB, 2)[:20]), says="cannot be read|no image"),
    Kind("bomb.png", _write(png(GREY, 0, size=(20000, 20000))), says="larger than Pillow decodes"),
]
"""Kinds that are refused, with words of the refusal."""
