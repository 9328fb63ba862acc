"""Damages a sound source of any format at random, as a function of a seed, so that it can be seen.

Nobody can see a point that was moved, a shape that is gone, or a map that was mirrored where nothing says where its
segments lie.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from damaged_data import VALUES, parent, places
from PIL import Image
from source_writers import photographs

WORDS = ["", "-1", "x", "nan", "1e9", "99999999999", "../../x", "inf", "é", "\x00"]
UNSEEN = re.compile(
    r"supercategory|bbox|iscrowd|area|isthing|version|color|group_id|was_cancelled|evaluate|instances|label|.*labels|"
    r"category_id|z_order"
)
"""Fields that say nothing of who is where, or whose other value is as right."""
NUMBERS = re.compile(r"points|segmentation")
"""Fields of which another number is as right."""


def damage(root: Path, seed: int | str) -> str:
    """Damage a source; gives what was done."""
    rng = random.Random(seed)
    path = rng.choice(sorted(p for p in root.rglob("*") if p.is_file()))
    if path.suffix in (".png", ".jpg"):
        is_photograph = path in set(photographs(root))
        relative = (root / "labels").is_dir()  # YOLO's points fit an image of any size
        kinds = [_file, _file if relative else _size] + ([] if is_photograph else [_size, _mode, _exchange])
    elif path.suffix == ".json":
        kinds = [_file, _value, _value, _missing, _row]
    else:
        kinds = [_file, _word, _word] + ([_line] if path.parent.name != "labels" else [])
    kind: Callable[[Path, random.Random], str] = rng.choice(kinds)
    return f"{path.relative_to(root)}, {kind.__name__}: {kind(path, rng)}"


def _file(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    at = rng.randrange(len(data) * 9 // 10)
    spoilt = rng.choice([None, b"", data[:at], b"version https://git-lfs.github.com/spec/v1\n", rng.randbytes(300)])
    if path.suffix not in (".png", ".jpg"):
        spoilt = rng.choice([spoilt, data[:at] + b"\0" + data[at:], data[:at] + b"\xff\xfe" + data[at:], b"<html>"])
    if spoilt is None and path.parents[1].name != "masks":
        path.unlink()
        return "gone"
    path.write_bytes(spoilt or b"")
    return f"{path.stat().st_size} bytes, at {at}"


def _size(path: Path, rng: random.Random) -> str:
    image = Image.open(path)
    size = (rng.randint(1, 50), rng.randint(1, 30))
    image.resize(size, Image.Resampling.NEAREST).save(path)
    return f"{size}"


def _mode(path: Path, rng: random.Random) -> str:
    """What programs do that save a map anew."""
    image = Image.open(path)
    mode = rng.choice(["L", "RGB", "P", "RGBA", "1", "bgr", "jpeg", "shrunk and grown"])
    if mode == "shrunk and grown" and len(np.unique(np.asarray(image))) <= 2:
        mode = "jpeg"  # what comes of two values by interpolation is two values
    if mode == "bgr" and "maps" not in path.parts:
        Image.merge("RGB", image.convert("RGB").split()[::-1]).save(path)
    elif mode == "jpeg":
        (image if image.mode in ("L", "RGB") else image.convert("RGB")).save(path, format="JPEG", quality=50)
    elif mode == "shrunk and grown":
        rgb = image.convert("RGB") if image.mode != "L" else image
        rgb.resize((9, 7), Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR).save(path)
    elif mode == "L" and image.mode.startswith("I"):
        Image.fromarray((np.asarray(image) % 256).astype(np.uint8)).save(path)
    elif mode == "P" and image.mode == "RGB":
        image.quantize(dither=Image.Dither.NONE).save(path)
    else:
        image.convert("RGB").convert("RGB" if mode in ("bgr", "P") else mode).save(path)
    return mode


def _exchange(path: Path, rng: random.Random) -> str:
    """With the same map of the other image."""
    name = path.name
    other = path.with_name({"a": "b", "b": "a"}.get(name[0], name[0]) + name[1:])
    if not other.exists() or other == path:
        other = path.parents[1] / {"a": "b", "b": "a"}.get(path.parent.name, "") / name
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)
    return "a and b"


def _field(path: tuple[Any, ...]) -> str:
    return str(next((key for key in reversed(path) if isinstance(key, str)), ""))


def _seen(path: tuple[Any, ...]) -> bool:
    return not UNSEEN.fullmatch(_field(path))


def _value(path: Path, rng: random.Random) -> str:
    content = json.loads(path.read_text())
    place = rng.choice([p for p in places(content) if _seen(p)])
    numbers = NUMBERS.fullmatch(_field(place))
    value = rng.choice([v for v in VALUES if not numbers or not isinstance(v, int | float) or v != v])
    former, parent(content, place)[place[-1]] = parent(content, place)[place[-1]], value
    path.write_text(json.dumps(content))
    return f"{place} is {value!r}, was {str(former)[:30]!r}"


def _missing(path: Path, rng: random.Random) -> str:
    content = json.loads(path.read_text())
    place = rng.choice([p for p in places(content) if isinstance(p[-1], str) and _seen(p)])
    del parent(content, place)[place[-1]]
    path.write_text(json.dumps(content))
    return f"no {place}"


def _row(path: Path, rng: random.Random) -> str:
    """Of a list, once more or no more."""
    content = json.loads(path.read_text())
    found = [p for p in places(content) if isinstance(p[-1], int) and _seen(p) and not NUMBERS.fullmatch(_field(p))]
    if not found:
        return "nothing"
    place = rng.choice(found)
    rows = parent(content, place)
    if _field(place) not in ("images", "categories") or rng.random() < 0.5:
        rows.append(json.loads(json.dumps(rows[place[-1]])))
        done = "twice"
    else:
        del rows[place[-1]]
        done = "gone"
    path.write_text(json.dumps(content))
    return f"{place} {done}"


def _word(path: Path, rng: random.Random) -> str:
    text = path.read_text()
    found, word = rng.choice(list(re.finditer(r"[\w.\-]+", text))), rng.choice(WORDS)
    path.write_text(text[: found.start()] + word + text[found.end() :])
    around = text[max(0, found.start() - 20) : found.end() + 20]
    return f"{found.group()!r} is {word!r} in {around!r}"


def _line(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines(keepends=True)
    at = rng.randrange(len(lines))
    if rng.random() < 0.5:
        done = f"{lines.pop(at)!r} gone"
    else:
        lines.insert(at, lines[at])
        done = f"{lines[at]!r} twice"
    path.write_text("".join(lines))
    return done[:100]
